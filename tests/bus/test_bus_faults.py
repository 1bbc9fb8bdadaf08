"""A server that dies and comes back on its data, while a bus publishes and another consumes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from bus.bus_kit import Fast, Once, Order, Place, eventually, keep, run, settled
from catga import Bus, ConnectionLost, Event

MANY = 6000
QUICK_LEASE = {"lease": 2}
"""What the server had handed to a connection that died comes again when its lease ends."""


@pytest.fixture
def hurt(brokered: Place) -> Any:
    """A place on a server of its own, to be killed."""
    with brokered.flavour.server() as server:
        yield attrs.evolve(brokered, server=server)


def test_killed_in_the_middle_nothing_accepted_is_lost_and_qos_2_is_not_repeated(
    hurt: Place,
) -> None:
    async def law() -> None:
        # Longer than the server is away: what was handled and could not be recorded within its
        # lease may be handled again.
        consumer = hurt.bus(settings={"lease": 10})
        ones, twos = keep(consumer, Order), keep(consumer, Once)
        assert hurt.server is not None
        server, killed = hurt.server, asyncio.Event()

        def messages() -> Iterator[Event]:
            for number in range(MANY):
                if number == MANY // 2:
                    server.kill()  # by the hand that publishes: surely in the middle
                    killed.set()
                yield (Once if number % 2 else Order)(number)

        async with consumer, hurt.bus(consume=False, publishes=[Order, Once]) as publisher:
            publishing = asyncio.create_task(publisher.publish_many(messages()))
            await killed.wait()
            await asyncio.to_thread(server.start)
            summary = await publishing
            failed = {position for position, _ in summary.failures}
            accepted = set(range(MANY)) - failed
            assert summary.accepted == len(accepted)
            await eventually(lambda: accepted <= {*ones, *twos}, 40)
            async with hurt.outside() as outside:
                await settled(outside, "Order", "tests")
                await settled(outside, "Once", "tests")
                assert await outside.dead("Order") == await outside.dead("Once") == []
        assert not failed, "the server was back long before the publish deadline"
        assert [number for number, times in Counter(twos).items() if times > 1] == []

    run(law, 90)


def test_a_stored_publish_waits_for_the_server_and_qos_0_says_that_it_is_gone(hurt: Place) -> None:
    async def law() -> None:
        bus = hurt.bus(settings=QUICK_LEASE)
        ones, fast = keep(bus, Order), keep(bus, Fast)
        assert hurt.server is not None
        async with bus:
            await bus.publish(Order(1))
            hurt.server.kill()
            await eventually(lambda: unwell(bus))
            with pytest.raises(ConnectionLost):
                await bus.publish(Fast(1))
            publishing = asyncio.create_task(bus.publish(Order(2)))
            await asyncio.to_thread(hurt.server.start)
            await publishing
            await eventually(lambda: healthy(bus))
            await eventually(lambda: {*ones} == {1, 2})
            await heard(bus, fast)
        assert 1 not in fast

    run(law)


async def healthy(bus: Bus) -> bool:
    return (await bus.health()).ok


async def unwell(bus: Bus) -> bool:
    return not await healthy(bus)


async def heard(bus: Bus, numbers: list[int]) -> None:
    """Publish until a listener is back: nobody promises when."""

    async def try_again() -> bool:
        await bus.publish(Fast(2))
        return bool(numbers)

    await eventually(try_again)


def test_a_server_that_stops_for_a_while_loses_nothing(hurt: Place) -> None:
    async def law() -> None:
        bus = hurt.bus(settings=QUICK_LEASE)
        twos = keep(bus, Once)
        assert hurt.server is not None
        async with bus:
            await bus.publish_many(Once(number) for number in range(100))
            hurt.server.pause()
            try:
                publishing = asyncio.create_task(
                    bus.publish_many(Once(number) for number in range(100, 1000))
                )
                done, _ = await asyncio.wait([publishing], timeout=1)
                assert not done
            finally:
                hurt.server.resume()
            assert (await publishing).accepted == 900
            async with hurt.outside() as outside:
                await settled(outside, "Once", "tests")
        assert sorted(twos) == list(range(1000))

    run(law)
