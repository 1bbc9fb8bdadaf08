"""What a bus learns at the door: not there, not allowed, too old, unsafe."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
from redis_kit import NAMESPACE, Lab, address_of, admin, gather_deliveries, lab, out, topology

from catga.errors import (
    AuthenticationError,
    CapabilityError,
    CatgaError,
    ConfigurationError,
    ConnectionLost,
)
from catga.spi import Address, Capability, EventKind, Mode, QualityOfService, Secret, Source
from catga.testing import free_port
from catga_nats.testing import NatsServer
from catga_redis.checks import check_server, find_risks
from catga_redis.plugin import catga_transports
from catga_redis.settings import RedisSettings
from catga_redis.testing import RedisServer
from catga_redis.transport import RedisTransport


async def failure_of_opening(address: Address, deadline: float = 1.0) -> CatgaError:
    bench = Lab(address)
    transport = RedisTransport(address, RedisSettings())
    began = time.monotonic()
    try:
        with pytest.raises(CatgaError) as caught:
            await transport.open(bench.runtime(deadline))
    finally:
        await transport.close()
        await bench.close()
    assert time.monotonic() - began < deadline + 1.0
    return caught.value


def test_a_server_that_is_not_there_is_reported_within_the_deadline() -> None:
    address = Address(
        "redis", (("127.0.0.1", free_port()),), username=Secret("joe"), password=Secret("hush")
    )
    error = asyncio.run(failure_of_opening(address))
    assert type(error) is ConnectionLost
    assert address.shown in str(error)
    assert "hush" not in str(error)
    assert "joe" not in str(error)


def test_a_server_that_is_silent_is_reported_within_the_deadline(own_server: RedisServer) -> None:
    own_server.pause()
    error = asyncio.run(failure_of_opening(address_of(own_server)))
    assert type(error) is ConnectionLost


@pytest.mark.parametrize("password", [None, "wrong"])
def test_wrong_credentials_are_refused_at_once(binary: str | None, password: str | None) -> None:
    with RedisServer(binary, password="hush-hush") as own:
        began = time.monotonic()
        error = asyncio.run(failure_of_opening(address_of(own, password), 5.0))
        assert time.monotonic() - began < 2.0, "no retry can help"
        assert type(error) is AuthenticationError
        assert "wrong" not in str(error)

        async def law() -> None:
            bench = Lab(address_of(own, "hush-hush"))
            transport = await bench.transport()
            assert (await transport.health()).ok
            assert "hush" not in repr(transport)
            await bench.close()

        asyncio.run(law())


@pytest.mark.parametrize("password", [None, "hush-hush"])
def test_tls_asked_of_a_server_in_clear_is_refused_at_once(
    binary: str | None, password: str | None
) -> None:
    with RedisServer(binary, password=password) as own:
        address = Address("rediss", (("127.0.0.1", own.port),), password=Secret("hush"))
        began = time.monotonic()
        error = asyncio.run(failure_of_opening(address, 10.0))
        assert time.monotonic() - began < 5.0, "no retry can help"
        assert type(error) is ConnectionLost
        assert str(error) == f"{address.shown}: the server does not speak TLS: use redis://"


def test_tls_with_a_server_that_is_silent_waits_until_the_deadline(own_server: RedisServer) -> None:
    own_server.pause()
    address = Address("rediss", (("127.0.0.1", own_server.port),))
    error = asyncio.run(failure_of_opening(address, 2.0))
    assert str(error) == f"{address.shown} is not there: TimeoutError"


@contextlib.contextmanager
def tls_port() -> Iterator[int]:
    """Yield a port of this process that speaks TLS, and ends whatever does not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def serve() -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                peer, _ = listener.accept()
                with peer, contextlib.suppress(OSError):
                    context.wrap_socket(peer, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("password", [None, Secret("hush")])
def test_a_server_that_may_want_tls_is_told_of(password: Secret | None) -> None:
    with tls_port() as port:
        address = Address("redis", (("127.0.0.1", port),), password=password)
        error = asyncio.run(failure_of_opening(address))
    assert type(error) is ConnectionLost
    assert str(error).endswith("use rediss://")
    assert "hush" not in str(error)


@pytest.mark.parametrize(
    ("scheme", "words"), [("redis", "does not speak the protocol"), ("rediss", "not speak TLS")]
)
def test_a_server_of_another_kind_is_refused_at_once(scheme: str, words: str) -> None:
    with NatsServer() as other:
        address = Address(scheme, (("127.0.0.1", other.port),))
        began = time.monotonic()
        error = asyncio.run(failure_of_opening(address, 10.0))
        assert time.monotonic() - began < 5.0, "no retry can help"
        assert type(error) is ConnectionLost
        assert words in str(error)


def test_the_path_is_the_database(server: RedisServer) -> None:
    with pytest.raises(ConfigurationError, match="database number"):
        RedisTransport(Address("redis", (("h", 1),), "orders"), RedisSettings())

    async def law() -> None:
        bench = Lab(Address("redis", (("127.0.0.1", server.port),), "3"))
        transport = await bench.transport()
        await transport.prepare(topology(publishes=("Db",)), Mode.CREATE)
        session = transport._session
        assert session is not None
        assert await session.line(b"").call(b"KEYS", b"*types") == [b"{law}:types"]
        await bench.close()

    asyncio.run(law())


@pytest.mark.parametrize(
    ("hello", "words"),
    [
        ({"server": "redis", "version": "6.2.14", "mode": "standalone"}, "redis 6.2.14"),
        ({"server": "valkey", "version": "7.2.5", "mode": "standalone"}, "valkey 7.2.5"),
        ({"server": "valkey", "version": "9.1.2", "mode": "cluster"}, "use redis.cluster://"),
    ],
)
def test_a_server_that_cannot_do_it_is_refused_by_name(hello: dict[str, str], words: str) -> None:
    with pytest.raises(CapabilityError, match=words):
        check_server(hello, "redis://host")


@pytest.mark.parametrize(("server_name", "version"), [("redis", "7.0.15"), ("valkey", "8.0.0")])
def test_the_oldest_supported_servers_are_accepted(server_name: str, version: str) -> None:
    check_server({"server": server_name, "version": version, "mode": "standalone"}, "here")


def test_risks_are_found_in_what_info_says() -> None:
    safe = {"aof_enabled": "1", "maxmemory": "1000000", "maxmemory_policy": "noeviction"}
    assert find_risks(safe, "always") == []
    for found, words in (("everysec", "is everysec"), (None, "is unknown")):
        (risk,) = find_risks(safe, found)
        assert (risk.name, risk.refused) == ("sync", False)
        assert words in risk.detail
    assert [each.name for each in find_risks(None, None)] == ["unknown"]
    assert [each.name for each in find_risks(safe, "always", 100)] == ["max_length"]
    unsafe = safe | {"aof_enabled": "0", "maxmemory_policy": "allkeys-lru"}
    assert [each.name for each in find_risks(unsafe, "always")] == ["persistence", "eviction"]


def test_a_server_that_writes_its_file_late_is_told_of(own_server: RedisServer) -> None:
    """It is how servers come; what a crash may cost then is said once, and nothing is refused."""

    async def law() -> None:
        async with lab(own_server) as bench:
            transport = await bench.transport()
            await transport.prepare(topology(), Mode.CREATE)
            assert bench.events == [], "the kit's servers answer for what is in their file"
            async with admin(own_server) as client:
                await client.config_set("appendfsync", "everysec")
            for _ in range(2):
                await transport.prepare(topology(), Mode.CREATE)
            (said,) = [each for each in bench.events if each.kind is EventKind.RISK]
            assert "`appendfsync` is everysec" in said.detail

    asyncio.run(law())


@pytest.mark.parametrize(
    ("risk", "option", "appendonly", "words"),
    [
        ("persistence", "appendonly yes", False, ""),
        (
            "eviction",
            "maxmemory-policy noeviction",
            True,
            "--maxmemory 100mb --maxmemory-policy allkeys-lru",
        ),
    ],
)
def test_qos_2_needs_a_server_that_keeps_its_data(
    binary: str | None, risk: str, option: str, appendonly: bool, words: str
) -> None:
    with RedisServer(binary, appendonly=appendonly, options=tuple(words.split())) as own:

        async def law() -> None:
            async with lab(own) as bench:
                transport = await bench.transport()
                with pytest.raises(CapabilityError, match=option) as caught:
                    await transport.prepare(topology(), Mode.CREATE)
                assert f'accept_risk=["{risk}"]' in str(caught.value)
                assert bench.events == []
                await transport.prepare(topology(accept_risk=frozenset({risk})), Mode.CREATE)
                weaker = topology(qos=QualityOfService.AT_LEAST_ONCE)
                other = await bench.transport()
                for _ in range(2):
                    await other.prepare(weaker, Mode.CREATE)
                said = [each.detail for each in bench.events if each.kind is EventKind.RISK]
                assert len(said) == 2, "each bus says it once"
                assert all(option in each for each in said)
                await other.prepare(topology(qos=QualityOfService.AT_MOST_ONCE), Mode.CREATE)

        asyncio.run(law())


def test_a_user_without_rights_beyond_the_data_can_work(own_server: RedisServer) -> None:
    """`INFO`, `CONFIG` and `CLIENT` are refused: unknown is said, nothing breaks."""

    async def law() -> None:
        async with lab(own_server) as bench:
            admin = await bench.transport()
            session = admin._session
            assert session is not None
            await session.line(b"").call(
                *b"ACL SETUSER poor on >pw ~* &* +@stream +@pubsub +@scripting +@string +@hash "
                b"+@set +@sortedset +@keyspace +hello +ping +time -info -config -client".split()
            )
            address = Address(
                "redis",
                (("127.0.0.1", own_server.port),),
                username=Secret("poor"),
                password=Secret("pw"),
            )
            poor = Lab(address)
            transport = await poor.transport()
            member = await poor.member(transport, "Poor")
            assert any("INFO is not permitted" in each.detail for each in poor.events)
            await transport.publish([out("Poor", qos=2)])
            (found,) = await gather_deliveries(member, 1)
            began = time.monotonic()
            await member.drain()
            assert time.monotonic() - began < 1.0
            assert found.attempt == 1
            await poor.close()

    asyncio.run(law())


def test_the_plugin_claims_its_schemes_and_what_it_can_do() -> None:
    (descriptor,) = catga_transports()
    assert descriptor.schemes == (
        *("redis", "rediss", "redis+sentinel"),
        *("redis+cluster", "rediss+cluster"),
    )
    assert Capability.HANDLED not in descriptor.capabilities
    transport = descriptor.factory(
        Address("redis", (("h", None),)), RedisSettings(), frozenset[str]()
    )
    assert transport.capabilities.present == descriptor.capabilities
    with pytest.raises(CapabilityError, match="handled"):
        transport.capabilities.require(Capability.HANDLED, "the test")


def test_each_role_has_one_connection_however_many_subscriptions(own_server: RedisServer) -> None:
    async def law() -> None:
        async with lab(own_server) as bench, admin(own_server) as client:
            transport = await bench.transport()
            for type_ in ("One", "Two", "Three"):
                for group in ("first", "second"):
                    await bench.member(transport, type_, group)
                await transport.subscribe(Source(NAMESPACE, type_))
            names = [each["name"] for each in await client.client_list() if each["name"]]
            roles = ("commands", "group-first", "group-second", "live")
            assert sorted(names) == [f"lab:{role}" for role in roles]

    asyncio.run(law())


def test_a_server_in_cluster_mode_is_refused_by_name(binary: str | None) -> None:
    async def law() -> None:
        # Left alone it would take the port 10000 above its own, which may be in use.
        options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
        with RedisServer(binary, options=options) as server:
            error = await failure_of_opening(address_of(server))
        assert isinstance(error, CapabilityError)
        assert "runs in cluster mode: use redis+cluster://" in str(error)

    asyncio.run(law())


def test_no_read_asks_for_more_than_read_count_or_the_window(own_server: RedisServer) -> None:
    async def law() -> None:
        async with lab(own_server) as bench, admin(own_server) as client:
            for window, read_count, most in ((90, 7, 7), (9, 500, 3)):  # 9 for three streams
                transport = await bench.transport(read_count=read_count)
                async with client.monitor() as monitor:
                    await bench.member(transport, f"Read{window}", window=window)
                    async with asyncio.timeout(10):
                        while True:
                            words = (await monitor.next_command())["command"].split()
                            if words[0] == "XREADGROUP" and f"{{law:Read{window}}}:log:0" in words:
                                break
                assert int(words[words.index("COUNT") + 1]) == most

    asyncio.run(law())
