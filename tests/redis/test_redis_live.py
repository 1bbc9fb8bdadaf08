"""Laws of QoS 0 and of requests on Redis Pub/Sub."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from redis_kit import NAMESPACE, admin, gather_deliveries, lab, nothing_more, out, until

from catga.errors import ConnectionLost, NoResponders
from catga.spi import (
    Address,
    EventKind,
    Kind,
    Outgoing,
    QualityOfService,
    Receipt,
    Rejected,
    Source,
    Subject,
)
from catga.testing.faults import FaultProxy
from catga_redis.testing import RedisServer


def live(type_: str, group: str = "") -> Source:
    return Source(NAMESPACE, type_, group)


def test_every_groupless_listener_gets_each(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            one, two = await bench.transport(), await bench.transport()
            listeners = [await each.subscribe(live("Cast")) for each in (one, one, two)]
            await one.publish([out("Cast", str(number).encode(), qos=0) for number in range(100)])
            for listener in listeners:
                found = await gather_deliveries(listener, 100)
                assert [each.body for each in found] == [str(n).encode() for n in range(100)]
                assert {(each.attempt, each.lease_until) for each in found} == {(1, float("inf"))}
            assert all([await nothing_more(each, 0.05) for each in listeners])

    asyncio.run(law())


def test_one_member_of_each_group_takes_each(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            buses = [await bench.transport() for _ in range(3)]
            workers = [await bus.subscribe(live("Split", "workers")) for bus in buses]
            audit = await buses[0].subscribe(live("Split", "audit"))
            everyone = await buses[0].subscribe(live("Split"))
            bodies = [str(number).encode() for number in range(300)]
            for start in range(0, 300, 20):
                await buses[1].publish(
                    [out("Split", body, qos=0) for body in bodies[start : start + 20]]
                )
            taken: list[bytes] = []

            async def collect() -> bool:
                for worker in workers:
                    taken.extend(each.body for each in await worker.receive(1000, 0.02))
                return len(taken) >= 300

            await until(collect)
            assert sorted(taken) == sorted(bodies), "each once, whoever took it"
            assert len(await gather_deliveries(audit, 300)) == 300
            assert len(await gather_deliveries(everyone, 300)) == 300
            assert all([await nothing_more(each, 0.1) for each in workers])

    asyncio.run(law())


def test_the_same_bytes_sent_again_are_another_message(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            one, two = await bench.transport(), await bench.transport()
            first = await one.subscribe(live("Beat", "workers"))
            await one.publish([out("Beat", b"beat", qos=0)] * 3)
            taken = await gather_deliveries(first, 3)
            second = await two.subscribe(live("Beat", "workers"))
            await one.publish([out("Beat", b"beat", qos=0)] * 3)

            async def collect() -> bool:
                taken.extend(await first.receive(10, 0.02) + await second.receive(10, 0.02))
                return len(taken) >= 6

            await until(collect)
            assert await nothing_more(first, 0.1)
            assert await nothing_more(second, 0.1)
            assert len(taken) == 6

    asyncio.run(law())


def test_what_is_sent_to_a_group_reaches_only_that_group(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            transport = await bench.transport()
            wanted = await transport.subscribe(live("Point", "workers"))
            other = await transport.subscribe(live("Point", "audit"))
            everyone = await transport.subscribe(live("Point"))
            await transport.publish([out("Point", qos=0, kind=Kind.LIVE_TO, group="workers")])
            (found,) = await gather_deliveries(wanted, 1)
            assert found.subject.kind is Kind.LIVE_TO
            assert await nothing_more(other, 0.1)
            assert await nothing_more(everyone, 0.1)

    asyncio.run(law())


def test_claims_leave_nothing_behind(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport(claim_time=timedelta(seconds=1))
            member = await transport.subscribe(live("Trace", "workers"))
            await transport.publish([out("Trace", qos=0)])
            await gather_deliveries(member, 1)

            async def clean() -> bool:
                return await client.keys("{law:Trace}*") == []

            await until(clean)

    asyncio.run(law())


def test_a_member_that_lags_behind_drops_and_says_so(server: RedisServer) -> None:
    """Taking what is older than a claim lives could be the second time."""

    async def law() -> None:
        async with lab(server) as bench:
            transport = await bench.transport(claim_time=timedelta(seconds=15))
            member = await transport.subscribe(live("Lag", "workers"))
            hub = transport._hubs[0]
            assert hub is not None
            hub.fresh_since -= 11.0
            await transport.publish([out("Lag", qos=0)])
            await until(lambda: any(each.kind is EventKind.SLOW_CONSUMER for each in bench.events))
            assert await nothing_more(member, 0.05)

    asyncio.run(law())


def test_a_request_that_nobody_listens_for_is_refused_at_once(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            transport = await bench.transport()
            instance = "0123456789abcdef"
            reply = Subject(NAMESPACE, Kind.REPLY, "r1", instance)
            request = out("Ask", qos=0, kind=Kind.LIVE_TO, group="billing", reply_to=reply)
            (nobody,) = await transport.publish([request])
            assert isinstance(nobody, Rejected)
            assert isinstance(nobody.error, NoResponders)
            responses = await transport.subscribe(Source(NAMESPACE, group=instance, reply=True))
            await transport.subscribe(live("Ask", "billing"))
            (asked,) = await transport.publish([request])
            assert isinstance(asked, Receipt)
            answer = Outgoing(reply, b"answer", "a-1", QualityOfService.AT_MOST_ONCE)
            assert isinstance((await transport.publish([answer]))[0], Receipt)
            (found,) = await gather_deliveries(responses, 1)
            assert (found.subject, found.body) == (reply, b"answer")

    asyncio.run(law())


def test_drain_still_returns_what_came_in(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            transport = await bench.transport()
            listener = await transport.subscribe(live("Late"))
            member = await transport.subscribe(live("Late", "workers"))
            await transport.publish([out("Late", str(n).encode(), qos=0) for n in range(10)])
            await transport.health()  # answered on the same connection: the server has them
            for each in (listener, member):
                await each.drain()
                assert len(await each.receive(100, 30.0)) == 10
                assert await each.receive(100, 30.0) == []
            await transport.publish([out("Late", qos=0)])
            assert await listener.receive(1, 0.0) == []

    asyncio.run(law())


def test_a_slow_listener_is_bounded_and_reported(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            transport = await bench.transport(live_buffer=10)
            listener = await transport.subscribe(live("Flood"))
            await transport.publish([out("Flood", qos=0) for _ in range(100)])
            await until(lambda: any(each.kind is EventKind.SLOW_CONSUMER for each in bench.events))
            assert len(await listener.receive(100, 0.1)) == 10

    asyncio.run(law())


def test_what_waits_to_be_claimed_is_bounded_and_reported(server: RedisServer) -> None:
    """The server still hands over what is published, and takes no claims."""

    async def law() -> None:
        async with FaultProxy(server.port) as proxy, lab(server) as bench:
            publisher = await bench.transport()
            bench.address = Address("redis", (("127.0.0.1", proxy.port),))
            consumer = await bench.transport(live_buffer=10)
            member = await consumer.subscribe(live("Held", "workers"))
            proxy.stall(up=True, down=False)
            await publisher.publish([out("Held", str(n).encode(), qos=0) for n in range(100)])
            await until(lambda: any(each.kind is EventKind.SLOW_CONSUMER for each in bench.events))
            proxy.heal()
            assert len(await gather_deliveries(member, 10)) == 10
            assert await nothing_more(member)

    asyncio.run(law())


def test_a_reconnect_is_a_gap_and_listening_goes_on(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            listener = await transport.subscribe(live("Cut"))
            await client.client_kill_filter(_type="pubsub")
            await until(lambda: any(each.kind is EventKind.GAP for each in bench.events))
            await transport.publish([out("Cut", b"after", qos=0)])
            (found,) = await gather_deliveries(listener, 1)
            assert found.body == b"after"

    asyncio.run(law())


def test_qos_0_is_refused_while_disconnected(own_server: RedisServer) -> None:
    async def law() -> None:
        async with lab(own_server) as bench:
            transport = await bench.transport()
            own_server.kill()
            await until(lambda: any(each.kind is EventKind.DISCONNECTED for each in bench.events))
            for qos in (0, 1, 2):
                (result,) = await transport.publish([out("Off", qos=qos)])
                assert isinstance(result, Rejected)
                assert isinstance(result.error, ConnectionLost)
                assert result.transient
            assert not (await transport.health()).ok

    asyncio.run(law())
