"""What the transport makes of the server it meets: connecting, settings, risks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import time
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats_kit import Opened, address_of, collect, fresh_namespace, opened, until

from catga.errors import AuthenticationError, CapabilityError, ConfigurationError, ConnectionLost
from catga.spi import Capability, EventKind, Mode, QualityOfService, Receipt, Rejected, Unknown
from catga.testing import FaultProxy, free_port
from catga_nats import NatsSettings
from catga_nats.client import GuardedClient, frame
from catga_nats.connection import parse_version
from catga_nats.errors import ApiError
from catga_nats.incoming import ack_tokens
from catga_nats.testing import NatsServer

TWICE = QualityOfService.EXACTLY_ONCE


async def _refused(address: Any, kind: type[Exception], **settings: Any) -> str:
    start = time.monotonic()
    with pytest.raises(kind) as caught:
        async with opened(address, connect_deadline=1.0, **settings):
            pass
    assert time.monotonic() - start < 4
    words = str(caught.value)
    cause: BaseException | None = caught.value
    while cause is not None:
        assert "s3cret" not in repr(cause)
        assert "alice" not in repr(cause)
        cause = cause.__cause__ or cause.__context__
    return words


def test_a_server_that_is_not_there_is_named_within_the_deadline() -> None:
    port = free_port()
    url = f"nats://alice:s3cret@127.0.0.1:{port}"
    words = asyncio.run(_refused(url, ConnectionLost))
    assert f"nats://127.0.0.1:{port}" in words


def test_a_server_that_says_nothing_is_named_within_the_deadline() -> None:
    async def law() -> None:
        words = await _refused(f"nats://alice:s3cret@127.0.0.1:{port}", ConnectionLost)
        assert f"nats://127.0.0.1:{port}" in words

    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        asyncio.run(law())


def test_a_client_that_loses_its_cancellation_is_ended_within_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before Python 3.12 a connection that is refused just then swallows it, and the client goes
    on to try for ever."""
    connect = Client._connect_to_server
    lost: list[Any] = []

    async def lose_one(self: Client, server: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if lost:
                raise
            lost.append(server)
        await connect(self, server)

    monkeypatch.setattr(Client, "_connect_to_server", lose_one)
    asyncio.run(_refused(f"nats://alice:s3cret@127.0.0.1:{free_port()}", ConnectionLost))
    assert len(lost) == 1


def test_a_try_to_reconnect_that_was_replaced_ends_though_it_lost_its_cancellation(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused again and again it went round for ever: nothing in there asks whether to go on."""

    async def refused(*_: object) -> None:
        await asyncio.sleep(0.01)
        raise ConnectionRefusedError

    async def law() -> None:
        async with opened(server.url) as here:
            client = here.client
            monkeypatch.setattr(Client, "_connect_to_server", refused)
            old, new = (asyncio.create_task(client._attempt_reconnect()) for _ in range(2))
            client._reconnection_task = new
            await asyncio.wait([old], timeout=5)
            assert old.done()
            assert not new.done()

    asyncio.run(law())


def test_wrong_credentials_fail_fast_and_are_not_shown(binary: str | None) -> None:
    with NatsServer(binary, user="alice", password="right") as server:
        wrong = server.url.replace("right", "s3cret")
        words = asyncio.run(_refused(wrong, AuthenticationError))
        assert f"nats://127.0.0.1:{server.port}" in words
        asyncio.run(_refused(f"nats://127.0.0.1:{server.port}", AuthenticationError))
        wrong_token = {"token": "s3cret"}
        asyncio.run(_refused(f"nats://127.0.0.1:{server.port}", AuthenticationError, **wrong_token))

        async def right() -> None:
            async with opened(server.url) as here:
                assert (await here.transport.health()).ok
                assert "right" not in repr(here.events)

        asyncio.run(right())


def test_tls_asked_for_is_never_replaced_by_clear_text(server: NatsServer) -> None:
    """The client would send the credentials in clear."""
    url = server.url.replace("nats://", "nats://alice:s3cret@")
    words = asyncio.run(_refused(address_of(url, scheme="tls"), ConnectionLost))
    assert "in clear" in words
    first = {"tls_first": True}
    words = asyncio.run(_refused(address_of(url, scheme="tls"), ConnectionLost, **first))
    assert "leave out tls_first" in words


@pytest.mark.parametrize("name", ["credentials_file", "nkey_seed_file", "tls_ca_file"])
def test_a_missing_file_is_named(server: NatsServer, name: str) -> None:
    words = asyncio.run(_refused(server.url, ConfigurationError, **{name: "/no/such/file"}))
    assert name in words
    assert "/no/such/file" in words


def test_a_server_that_is_too_old_is_refused_by_version() -> None:
    assert parse_version("2.10.0") == (2, 10, 0)
    assert parse_version("2.15.1-RC.2") == (2, 15, 1)
    for old in ("2.9.25", "1.4.1", "", "unknown"):
        with pytest.raises(CapabilityError, match=r"2\.10 is needed"):
            parse_version(old)


def test_ack_subjects_are_read_with_and_without_a_domain() -> None:
    assert ack_tokens(b"$JS.ACK.s-log.g=T.3.17.9.1700000000000000000.5") == (3, "17")
    assert ack_tokens(b"$JS.ACK.hub.AbC1.s-log.g=T.3.17.9.1700000000000000000.5.xYz") == (3, "17")
    assert ack_tokens(b"$JS.ACK.hub.AbC1.s-log.g=T.3.17.9.1700000000000000000.5") == (3, "17")


def test_without_jetstream_only_qos_0_is_offered(binary: str | None) -> None:
    async def law(url: str) -> None:
        async with opened(url) as here:
            capabilities = here.transport.capabilities
            assert Capability.AT_MOST_ONCE in capabilities
            for absent in (Capability.AT_LEAST_ONCE, Capability.EXACTLY_ONCE):
                with pytest.raises(CapabilityError, match="-js"):
                    capabilities.require(absent, "Order")
            with pytest.raises(CapabilityError, match=r"jetstream \{\}"):
                await here.prepare(here.source())
            assert here.transport.inbox is None
            assert (await here.transport.health()).ok

    with NatsServer(binary, jetstream=False) as server:
        asyncio.run(law(server.url))


def test_memory_storage_is_refused_at_qos_2_and_told_at_qos_1(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url, storage="memory") as here:
            await here.prepare(here.source())
            assert any("storage=memory" in words for words in here.told(EventKind.RISK))
            said = len(here.told(EventKind.RISK))
            await here.prepare(here.source())
            assert len(here.told(EventKind.RISK)) == said
        async with opened(server.url, here.namespace) as there:  # as it is found
            with pytest.raises(CapabilityError, match=r"storage=file .*accept_risk=.*storage"):
                await there.prepare(there.source(), qos=TWICE)
            await there.prepare(there.source(), qos=TWICE, accept_risk=frozenset({"storage"}))

    asyncio.run(law())


def test_a_window_below_w_is_refused_at_qos_2(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url, duplicate_window=timedelta(minutes=1)) as here:
            with pytest.raises(CapabilityError, match=r"duplicate_window=60s, W is 600s"):
                await here.prepare(qos=TWICE)
            await here.prepare(qos=TWICE, accept_risk=frozenset({"duplicate_window"}))
            assert here.told(EventKind.RISK)

    asyncio.run(law())


async def _stream(here: Opened, name: str = "log") -> dict[str, Any]:
    info = await here.ask(f"STREAM.INFO.{here.namespace}-{name}")
    config: dict[str, Any] = info["config"]
    return config


def test_what_is_created_is_what_was_asked_for(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            await here.prepare(here.source(), qos=TWICE)
            config = await _stream(here)
            assert config["subjects"] == [
                f"{here.namespace}.{k}.>" for k in ("log", "to", "once", "redo", "later")
            ]
            # A stream with schedules can't have "new"; without a bound it makes no difference.
            discard = "old" if config.get("allow_msg_schedules") else "new"
            assert (config["retention"], config["discard"]) == ("limits", discard)
            assert (config["storage"], config["num_replicas"]) == ("file", 1)
            assert config["duplicate_window"] == 600 * 10**9
            assert (await _stream(here, "dead"))["subjects"] == [f"{here.namespace}.dead.>"]
            assert here.told(EventKind.RISK) == []

    asyncio.run(law())


def test_explicit_settings_are_reconciled_and_others_adopted(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url, max_age=timedelta(hours=1)) as here:
            await here.prepare(here.source(lease=7.0))
        async with opened(server.url, here.namespace) as adopts:
            subscription = await adopts.subscribe(adopts.source(lease=30.0))
            assert (await _stream(adopts))["max_age"] == 3600 * 10**9
            assert subscription.lease == 7.0
        async with opened(
            server.url, here.namespace, max_age=timedelta(hours=2), ack_wait=timedelta(seconds=9)
        ) as changes:
            with pytest.raises(ConfigurationError, match=r"max_age=3600s.*7200s.*verify"):
                await changes.prepare(changes.source(), mode=Mode.VERIFY)
            subscription = await changes.subscribe(changes.source())
            assert (await _stream(changes))["max_age"] == 7200 * 10**9
            assert subscription.lease == 9.0

    asyncio.run(law())


def test_what_cannot_be_changed_is_refused_by_name(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            await here.prepare(here.source())
            name = here.namespace
        async with opened(server.url, name, storage="memory") as there:
            with pytest.raises(
                ConfigurationError, match=rf"{name}-(log|dead).*storage=file.*memory"
            ):
                await there.prepare()

    asyncio.run(law())


def test_a_stream_with_another_retention_is_refused_by_name(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            subjects = [f"{here.namespace}.{kind}.>" for kind in ("log", "to", "redo", "later")]
            name = f"{here.namespace}-log"
            config = {"name": name, "subjects": subjects, "retention": "workqueue"}
            await here.ask(f"STREAM.CREATE.{name}", config)
            with pytest.raises(ConfigurationError, match=rf"{name}.*retention=workqueue.*limits"):
                await here.prepare()

    asyncio.run(law())


def test_replicas_that_the_server_cannot_have_are_refused(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url, replicas=3) as here:
            with pytest.raises(ConfigurationError, match="replicas"):
                await here.prepare()

    asyncio.run(law())


def test_a_finite_limit_of_deliveries_is_lifted_or_told(server: NatsServer) -> None:
    """What reaches such a limit is stranded: it comes to nobody, and nobody parks it."""

    async def law() -> None:
        namespace = fresh_namespace()
        call = f"CONSUMER.INFO.{namespace}-log.billing=Order"
        async with opened(server.url, namespace, max_deliver=50) as here:
            await here.prepare(here.source(attempts=5))
            assert (await here.ask(call))["config"]["max_deliver"] == 50
            assert any("max_deliver=50" in words for words in here.told(EventKind.RISK))
            with pytest.raises(CapabilityError, match=r"max_deliver=50.*accept_risk"):
                await here.prepare(here.source(), qos=QualityOfService.EXACTLY_ONCE)
            with pytest.raises(ConfigurationError, match="max_deliver=50"):
                await here.prepare(here.source(attempts=50))
        async with opened(server.url, namespace) as here:
            await here.prepare(here.source(), mode=Mode.VERIFY)
            assert any("max_deliver=50" in words for words in here.told(EventKind.RISK))
            await here.prepare(here.source())
            assert (await here.ask(call))["config"]["max_deliver"] == -1

    asyncio.run(law())


def test_a_retention_that_somebody_asked_for_and_nothing_keeps_to_is_told(
    server: NatsServer,
) -> None:
    async def law() -> None:
        for given, told in ((frozenset[str](), 0), (frozenset({"retention"}), 1)):
            async with opened(server.url, also_given=given) as here:
                await here.prepare(here.source())
                await here.prepare(here.source(), qos=TWICE)
                words = [each for each in here.told(EventKind.RISK) if "retention" in each]
                assert len(words) == told

    asyncio.run(law())


def test_verify_mode_creates_nothing(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            with pytest.raises(ConfigurationError, match=rf"{here.namespace}-log"):
                await here.prepare(here.source(), mode=Mode.VERIFY)
            (info,) = await here.transport._api.call([(f"STREAM.INFO.{here.namespace}-log", None)])
            assert isinstance(info, ApiError)
            assert info.err_code == 10059

    asyncio.run(law())


def test_the_smallest_permissions_are_enough_and_a_missing_one_is_named(
    binary: str | None,
) -> None:
    namespace = fresh_namespace()
    config = (
        "authorization { users: [ { user: alice, password: s3cret, permissions: { "
        f'publish: ["{namespace}.>", "$JS.API.>", "$JS.ACK.>"], '
        f'subscribe: ["{namespace}.live.>", "_INBOX.>"] }} }} ] }}'
    )

    async def law(server: NatsServer) -> None:
        url = server.url.replace("nats://", "nats://alice:s3cret@")
        async with opened(url, namespace) as here:
            stored = await here.subscribe(here.source())
            await here.transport.publish([here.outgoing(b"allowed")])
            assert len(await collect(stored, 1)) == 1
            with pytest.raises(AuthenticationError, match="reply"):
                await here.transport.subscribe(here.source("me", durable=False, reply=True))
        async with opened(url) as there:  # another namespace
            (result,) = await there.transport.publish([there.outgoing()])
            assert isinstance(result, Rejected)
            assert isinstance(result.error, AuthenticationError)
            assert "s3cret" not in repr(there.events)

    with NatsServer(binary, config=config) as server:
        asyncio.run(law(server))


def test_settings_are_checked_and_the_token_is_not_shown() -> None:
    assert "s3cret" not in repr(NatsSettings(token="s3cret"))
    for wrong in (
        {"storage": "tape"},
        {"replicas": 0},
        {"max_ack_pending": 0},
        {"max_age": timedelta(0)},
    ):
        with pytest.raises(ValueError, match=r"tape|replicas|max_ack_pending|max_age"):
            NatsSettings(**wrong)


def test_nothing_is_left_behind(server: NatsServer) -> None:
    async def law() -> None:
        before = len(asyncio.all_tasks())
        async with opened(server.url) as here:
            for source in (
                here.source(),
                here.source(durable=False),
                here.source("me", durable=False, reply=True),
                here.source(ephemeral=True),
            ):
                await here.subscribe(source)
            await here.transport.close()
            await here.transport.close()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == before

    asyncio.run(law())


def test_a_reader_that_died_is_noticed_and_replaced(server: NatsServer) -> None:
    """Nothing but a round trip shows it: the client says that it is connected."""

    async def law() -> None:
        async with opened(server.url, ping_interval=timedelta(seconds=0.1)) as here:
            subscription = await here.subscribe(here.source())
            reading = here.client._reading_task
            assert reading is not None
            reading.cancel()
            await until(lambda: len(here.told(EventKind.CONNECTED)) == 2)
            await here.transport.publish([here.outgoing(b"alive")])
            assert (await collect(subscription, 1))[0].body == b"alive"

    asyncio.run(law())


def test_a_server_that_hangs_is_left_and_met_again(binary: str | None) -> None:
    async def law(server: NatsServer) -> None:
        ping = timedelta(seconds=0.2)
        async with opened(server.url, connect_deadline=1.0, ping_interval=ping) as here:
            subscription = await here.subscribe(here.source(lease=1.0))
            server.pause()

            async def hangs() -> bool:
                return not await here.client.answers(0.1)

            await until(hangs)
            (result,) = await here.transport.publish([here.outgoing(b"lost?", "id")])
            assert isinstance(result, Unknown)
            server.resume()
            await until(lambda: len(here.told(EventKind.CONNECTED)) == 2)
            (again,) = await here.transport.publish([here.outgoing(b"lost?", "id")])
            assert isinstance(again, Receipt)
            assert len(await collect(subscription, 1)) == 1

    with NatsServer(binary) as server:
        asyncio.run(law(server))


def test_a_word_of_the_server_does_not_close_the_client_for_good(server: NatsServer) -> None:
    """Any `-ERR` but a stale connection or a permission did."""

    async def law() -> None:
        async with opened(server.url) as here:
            wire = here.client._transport
            assert wire is not None
            wire.write(b"NONSENSE\r\n")
            await until(lambda: len(here.told(EventKind.CONNECTED)) == 2)
            assert here.told(EventKind.TROUBLE)
            assert (await here.transport.health()).ok

    asyncio.run(law())


def test_a_server_that_was_paused_stands_still_at_once(binary: str | None) -> None:
    with (
        NatsServer(binary) as server,
        socket.create_connection(("127.0.0.1", server.port)) as talking,
    ):
        talking.sendall(b"CONNECT {}\r\n")
        for _ in range(200):
            server.pause()
            try:
                threads = Path(f"/proc/{server.pid}/task").glob("*/stat")
                states = {each.read_text().rpartition(")")[2].split()[0] for each in threads}
                assert states <= {"T"}  # a system without /proc tells nothing
            finally:
                server.resume()
            talking.sendall(b"PING\r\n" * 1000)  # so that it has something to do


def test_what_the_guard_leans_on_is_still_in_the_client() -> None:
    """The overridden names are the client's private ones."""
    overridden = [name for name in vars(GuardedClient) if name.startswith("_") and "__" not in name]
    assert len(overridden) >= 6
    for name in overridden:
        assert callable(getattr(Client, name)), name
    client = Client()
    names = ("_pending", "_pending_data_size", "_flush_queue", "_pongs", "_server_info", "_sid")
    for name in (*names, "_transport"):
        assert hasattr(client, name), name


def test_removing_a_namespace_leaves_no_stream_of_it_and_no_other_is_touched(
    server: NatsServer,
) -> None:
    async def streams(here: Opened) -> set[str]:
        found = await here.ask("STREAM.NAMES", {})
        return {name for name in found["streams"] or () if here.namespace in name}

    async def law() -> None:
        async with opened(server.url) as here, opened(server.url) as other:
            for each in (here, other):
                await each.prepare(each.source(), qos=TWICE)
            made = await streams(other)
            assert len(await streams(here)) == len(made) >= 3
            await here.transport.remove(here.namespace)
            await here.transport.remove(here.namespace)
            assert await streams(here) == set()
            assert await streams(other) == made

    asyncio.run(law())


def test_a_try_to_reconnect_that_loses_its_cancellation_ends_with_its_client(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Python 3.12 an answer that comes just then swallows it, and the client is connected
    though it was closed."""
    greet = Client._process_connect_init
    tries: list[Any] = []

    async def lose_one(self: Client) -> None:
        tries.append(asyncio.current_task())
        if len(tries) == 1:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        await greet(self)

    async def law() -> None:
        async with opened(server.url) as lab:
            monkeypatch.setattr(Client, "_process_connect_init", lose_one)
            lab.client.abort()
            await until(lambda: bool(tries))
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()}, 3)

    asyncio.run(law())


def test_what_is_written_to_a_socket_that_was_lost_raises_nothing_and_it_goes_on(
    server: NatsServer,
) -> None:
    """From CPython 3.12 on `writelines` of such a socket raises, or watches the number that it
    had."""

    async def law() -> None:
        async with opened(server.url) as lab:
            client, turns = lab.client, 0
            client.abort()
            while client.is_connected:  # its reader has not noticed yet
                turns += 1
                for _ in range(3):  # the first leaves at once, the others by the client's task
                    await client.write([frame("nobody", b"")])
                await asyncio.sleep(0)
            assert turns > 1
            await until(lambda: client.is_connected)
            assert await client.answers(2)

    asyncio.run(law())


def test_a_transport_that_is_closed_at_any_moment_of_its_reconnecting_leaves_no_socket(
    server: NatsServer,
) -> None:
    async def close_after(proxy: FaultProxy, turns: int) -> None:
        async with opened(f"nats://127.0.0.1:{proxy.port}") as lab:
            lab.client.options["reconnect_time_wait"] = 0
            proxy.cut()
            for _ in range(turns):
                await asyncio.sleep(0)

    async def law() -> None:
        proxy = await FaultProxy(server.port).start()
        try:
            for turns in range(0, 40, 2):
                await close_after(proxy, turns)
        finally:
            await proxy.close()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        asyncio.run(law())
        gc.collect()
    assert [str(each.message) for each in caught] == []
