"""One connection: what it carries when its server is stuck, slow or not in charge any more."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from redis_kit import NAMESPACE, Lab, accepted, admin, gather_deliveries, lab, out, until

from catga.errors import AuthenticationError
from catga.spi import Address, EventKind, Receipt, Rejected, Source, Subscription, Unknown
from catga.testing import free_port
from catga.testing.faults import FaultProxy
from catga_redis.testing import RedisPair, RedisServer
from catga_redis.transport import RedisTransport

MEGABYTE = b"x" * (1 << 20)


async def publish(transport: RedisTransport, type_: str) -> bool:
    """Publish once, and say whether it was accepted; if not, it can be tried again."""
    (result,) = await transport.publish([out(type_)])
    assert isinstance(result, Receipt | Unknown) or (
        isinstance(result, Rejected) and result.transient
    )
    return isinstance(result, Receipt)


async def healthy(transport: RedisTransport) -> bool:
    return (await transport.health()).ok


async def behind(proxy: FaultProxy, bench: Lab, type_: str) -> Subscription:
    """Read through the proxy, with a short `reply_timeout`."""
    bench.address = Address("redis", (("127.0.0.1", proxy.port),))
    short = timedelta(seconds=0.5)
    transport = await bench.transport(reply_timeout=short, block_time=timedelta(seconds=0.1))
    return await bench.member(transport, type_)


async def may_listen(client: Redis, channels: str) -> None:
    """Let everybody listen to these channels, and to no others."""
    await client.acl_setuser("default", enabled=True, reset_channels=True, channels=[channels])


def live(type_: str, group: str = "") -> Source:
    return Source(NAMESPACE, type_, group)


def test_what_a_stuck_server_never_read_does_not_mute_the_next_connection(
    binary: str | None, own_server: RedisServer
) -> None:
    """More waits to be written than the kernel takes, and it waits for ever."""

    async def law(other: RedisServer) -> None:
        hosts = (("127.0.0.1", own_server.port), ("127.0.0.1", other.port))
        bench = Lab(Address("redis", hosts))
        transport = await bench.transport(reply_timeout=timedelta(seconds=0.5))
        own_server.pause()
        results = await transport.publish([out("Stuck", MEGABYTE) for _ in range(32)])
        assert {type(each) for each in results} == {Unknown}
        await until(lambda: bench.events[-1].kind is EventKind.CONNECTED)
        (result,) = await transport.publish([out("Stuck")])
        assert isinstance(result, Receipt)
        await bench.close()

    with RedisServer(binary) as other:
        asyncio.run(law(other))


def test_who_may_not_listen_again_is_told_of_and_listens_when_it_may(
    own_server: RedisServer,
) -> None:
    """As after a change of its rights: the connection is sound, and only a part is refused."""

    async def law() -> None:
        async with lab(own_server) as bench, admin(own_server) as client:

            def told(kind: EventKind) -> list[str]:
                return [each.detail for each in bench.events if each.kind is kind]

            transport = await bench.transport()
            listeners = {
                type_: [await transport.subscribe(live(type_, group)) for group in ("", "workers")]
                for type_ in ("Barred", "Open")
            }
            await may_listen(client, "law.*Open*")
            await client.client_kill_filter(_type="pubsub")
            await until(lambda: bool(told(EventKind.TROUBLE)))
            assert "permission" in told(EventKind.TROUBLE)[0]
            assert not told(EventKind.GAP), "it does not listen to everything yet"
            assert "permission" in (await transport.health()).detail
            await transport.publish([out("Open", qos=0)])
            for each in listeners["Open"]:
                assert len(await gather_deliveries(each, 1)) == 1
            with pytest.raises(AuthenticationError):
                await transport.subscribe(live("Refused"))
            await may_listen(client, "*")
            await until(lambda: bool(told(EventKind.GAP)))
            await until(lambda: healthy(transport))
            await transport.publish([out("Barred", qos=0)])
            for each in listeners["Barred"]:
                assert len(await gather_deliveries(each, 1)) == 1
            assert len(told(EventKind.TROUBLE)) == 1, "said once"

    asyncio.run(law())


def test_who_was_refused_is_not_asked_for_again(own_server: RedisServer) -> None:
    async def law() -> None:
        async with lab(own_server) as bench, admin(own_server) as client:
            transport = await bench.transport()
            listener = await transport.subscribe(live("Open"))
            await may_listen(client, "law.*Open*")
            with pytest.raises(AuthenticationError):
                await transport.subscribe(live("Barred", "workers"))
            await client.client_kill_filter(_type="pubsub")
            await until(lambda: any(each.kind is EventKind.GAP for each in bench.events))
            await transport.publish([out("Open", qos=0)])
            assert len(await gather_deliveries(listener, 1)) == 1
            assert not any(each.kind is EventKind.TROUBLE for each in bench.events)

    asyncio.run(law())


def test_behind_one_name_the_new_primary_is_found(binary: str | None) -> None:
    """The connection to the old one lives on: nobody but its answers says that it is a replica."""

    async def law(pair: RedisPair) -> None:
        async with FaultProxy(pair.primary.port) as proxy:
            bench = Lab(Address("redis", (("127.0.0.1", proxy.port),)))
            transport = await bench.transport()
            member = await bench.member(transport, "Led")
            assert await publish(transport, "Led")
            await asyncio.to_thread(pair.hand_over)
            assert not await publish(transport, "Led")
            proxy.target = pair.replica.port
            await until(lambda: publish(transport, "Led"))
            await until(lambda: publish(transport, "Led"))
            assert len(await gather_deliveries(member, 3)) == 3
            await bench.close()

    with RedisPair(binary) as pair:
        asyncio.run(law(pair))


def test_a_server_that_is_demoted_is_left_and_used_again_when_it_is_in_charge(
    own_server: RedisServer,
) -> None:
    async def law() -> None:
        async with lab(own_server) as bench, admin(own_server) as client:
            transport = await bench.transport()
            await client.replicaof("127.0.0.1", str(free_port()))

            async def said() -> bool:
                assert not await publish(transport, "Demoted")
                return "is a replica" in (await transport.health()).detail

            await until(said)
            assert not (await transport.health()).ok
            assert sum(each.kind is EventKind.DISCONNECTED for each in bench.events) == 1
            await client.replicaof("NO", "ONE")
            await until(lambda: publish(transport, "Demoted"))
            assert (await transport.health()).ok

    asyncio.run(law())


def test_a_long_answer_over_a_slow_line_is_no_silence(server: RedisServer) -> None:
    """Bytes come all the time, and the whole only after a multiple of `reply_timeout`."""

    async def law() -> None:
        async with FaultProxy(server.port) as proxy, lab(server) as bench:
            publisher = await bench.transport()
            member = await behind(proxy, bench, "Slow")
            proxy.delay(down=0.05)
            accepted(await publisher.publish([out("Slow", MEGABYTE) for _ in range(2)]))
            found = await gather_deliveries(member, 2)
            assert {(each.body, each.attempt) for each in found} == {(MEGABYTE, 1)}
            assert not any(each.kind is EventKind.DISCONNECTED for each in bench.events)

    asyncio.run(law())


def test_an_answer_that_stops_in_its_middle_is_a_silence(server: RedisServer) -> None:
    async def law() -> None:
        async with FaultProxy(server.port) as proxy, lab(server) as bench:
            publisher = await bench.transport()
            member = await behind(proxy, bench, "Stops")
            proxy.delay(down=0.05)
            accepted(await publisher.publish([out("Stops", MEGABYTE)]))
            begun = proxy.counts.server_writes + 8
            await until(lambda: proxy.counts.server_writes > begun)
            proxy.stall(up=False)
            await until(lambda: any(each.kind is EventKind.DISCONNECTED for each in bench.events))
            proxy.heal()
            (found,) = await gather_deliveries(member, 1)
            assert (found.body, found.attempt) == (MEGABYTE, 1)

    asyncio.run(law())
