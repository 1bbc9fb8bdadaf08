"""A primary that dies and the replica that takes over, through the bus at QoS 2."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import attrs
import pytest
from redis.asyncio import Redis
from redis_kit import until

from catga import Bus, Event, Node, QualityOfService, TransportError
from catga.spi import Start
from catga.testing import free_port
from catga_redis.testing import RedisPair

KEY = "{law:Paid}:log:0"


@attrs.frozen
class Paid(Event):
    qos = QualityOfService.EXACTLY_ONCE
    number: int


@pytest.fixture
def pair(binary: str | None) -> Iterator[RedisPair]:
    with RedisPair(binary) as running:
        yield running


def bus_of(pair: RedisPair, *, replica_first: bool = False, **more: object) -> Bus:
    ports = [pair.primary.port, pair.replica.port]
    hosts = ",".join(f"127.0.0.1:{port}" for port in (ports[::-1] if replica_first else ports))
    return Bus(f"redis://{hosts}", service="shop", namespace="law", settings=more)


async def unsettled(url: str) -> int:
    async with Redis.from_url(url) as client:
        (group,) = await client.xinfo_groups(KEY)
        # Redis 7.0 does not know the lag after a promotion: then only what is pending counts.
        return int(group["pending"] + (group["lag"] or 0))


@pytest.mark.parametrize("replica_first", [False, True])
def test_what_was_replicated_is_neither_lost_nor_handled_twice_by_a_promotion(
    pair: RedisPair, replica_first: bool
) -> None:
    """And what was not replicated is lost, although its publish was accepted: nobody but its
    publisher can bring it back, and the ids do not stand in the way."""

    async def law() -> None:
        handled: Counter[int] = Counter()
        held = asyncio.Event()
        bus = bus_of(pair, replica_first=replica_first)

        @bus.handle(Paid, start=Start.BEGINNING)
        async def pay(message: Paid) -> None:
            if message.number >= 50:
                await held.wait()
            handled[message.number] += 1

        async def settled() -> bool:
            return await unsettled(pair.url) == 0

        async with bus:
            messages = [Paid(number) for number in range(110)]
            assert (await bus.publish_many(messages[:50])).accepted == 50
            await until(settled)
            # These are in hand, or wait, while everything changes under them.
            assert (await bus.publish_many(messages[50:100])).accepted == 50
            assert await asyncio.to_thread(pair.replicated)
            pair.lag()
            assert (await bus.publish_many(messages[100:])).accepted == 10
            pair.promote()
            async with Redis.from_url(pair.url) as client:
                assert await client.xlen(KEY) == 100, "ten are lost"
            again = await bus.publish_many(messages)
            assert (again.accepted, again.duplicates) == (110, 100), "the ids were replicated too"
            held.set()
            await until(lambda: len(handled) == 110)
            await until(settled)
            async with Redis.from_url(pair.url) as client:
                assert await client.xlen(KEY) == 110
        assert all(handled[number] == 1 for number in range(100))

    async def bounded() -> None:
        async with asyncio.timeout(25):
            await law()

    asyncio.run(bounded())


def test_a_planned_hand_over_costs_nothing(pair: RedisPair) -> None:
    """The old primary lives on as a replica: it answers, and takes no writes any more."""

    async def law() -> None:
        handled: Counter[int] = Counter()
        bus = bus_of(pair)

        @bus.handle(Paid, start=Start.BEGINNING)
        async def pay(message: Paid) -> None:
            handled[message.number] += 1

        async def settled() -> bool:
            return await unsettled(pair.url) == 0

        async with asyncio.timeout(20), bus:
            messages = [Paid(number) for number in range(2000)]
            publishing = asyncio.create_task(bus.publish_many(messages))
            await until(lambda: len(handled) > 100)
            await asyncio.to_thread(pair.hand_over)
            summary = await publishing
            assert (summary.accepted, summary.failures) == (2000, ())
            await until(lambda: len(handled) == 2000)
            await until(settled)
            async with Redis.from_url(pair.url) as client:
                assert await client.xlen(KEY) == 2000
        assert set(handled.values()) == {1}

    asyncio.run(law())


def test_a_planned_hand_over_is_no_nodes_end_and_the_old_primary_is_not_believed(
    pair: RedisPair,
) -> None:
    async def law() -> None:
        ports = f"127.0.0.1:{pair.primary.port},127.0.0.1:{pair.replica.port}"
        settings = {"node_ttl": 60.0}
        one, eye = (
            Bus(f"redis://{ports}", service="shop", node=node, settings=settings)
            for node in (Node(id="one"), False)
        )
        async with asyncio.timeout(25), one, eye:
            (before,) = await eye.discovery.nodes()
            assert await asyncio.to_thread(pair.replicated)
            await asyncio.to_thread(pair.hand_over)
            async with Redis(host="127.0.0.1", port=pair.primary.port) as old:
                await old.replicaof("127.0.0.1", str(free_port()))  # it hears nothing any more

            async def beats() -> bool:
                try:
                    await one.discovery.heartbeat(load=1.0)
                except TransportError:
                    return False
                return True

            async def seen() -> bool:
                try:
                    found = await eye.discovery.nodes()
                except TransportError:
                    return False
                return found == (attrs.evolve(before, load=1.0, last_seen=found[0].last_seen),)

            await until(beats)
            await until(seen)

    asyncio.run(law())
