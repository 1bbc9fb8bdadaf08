"""At most once, over every transport: who listens gets it, never twice, nothing is kept."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from bus.bus_kit import Fast, Order, Place, eventually, keep, run
from catga import QualityOfService

HUNDRED = list(range(100))


def test_every_listener_gets_it_once_and_the_members_of_a_group_share(place: Place) -> None:
    async def law() -> None:
        members = [place.bus(group="shared") for _ in range(2)]
        other, listener = place.bus(group="other"), place.bus()
        shared = [keep(bus, Fast) for bus in members]
        alone = [keep(other, Fast), keep(listener, Fast, broadcast=True)]
        async with place.bus(consume=False) as publisher, AsyncExitStack() as running:
            for bus in (*members, other, listener):
                await running.enter_async_context(bus)
            summary = await publisher.publish_many(Fast(number) for number in HUNDRED)
            assert summary.accepted == 100
            await eventually(lambda: len(shared[0]) + len(shared[1]) >= 100)
            await eventually(lambda: all(len(each) >= 100 for each in alone))
        # Closed and drained: whatever was still on its way would have been handled too.
        assert sorted(shared[0] + shared[1]) == HUNDRED
        assert [sorted(each) for each in alone] == [HUNDRED, HUNDRED]

    run(law)


def test_the_same_bytes_sent_twice_are_two_messages(place: Place) -> None:
    async def law() -> None:
        bus = place.bus()
        numbers = keep(bus, Fast)
        async with bus:
            message = Fast(7)
            await bus.publish(message)
            await bus.publish(message)
            await eventually(lambda: len(numbers) == 2)
        assert numbers == [7, 7]

    run(law)


def test_send_reaches_only_its_group(place: Place) -> None:
    async def law() -> None:
        near, far, listener = place.bus(group="near"), place.bus(group="far"), place.bus()
        got = [keep(near, Fast), keep(far, Fast), keep(listener, Fast, broadcast=True)]
        async with near, far, listener:
            await listener.send(Fast(1), to="near")
            await listener.send(Fast(2), to="far")
            await listener.publish(Fast(3))
            await eventually(lambda: [len(each) for each in got] == [2, 2, 1])
        assert [sorted(each) for each in got] == [[1, 3], [2, 3], [3]]

    run(law)


def test_a_failing_handler_is_counted_and_harms_nobody(place: Place) -> None:
    async def law() -> None:
        calls: list[int] = []
        bus, other = place.bus(), place.bus(group="other")
        numbers = keep(other, Fast)

        @bus.handle(Fast)
        async def fail(message: Fast) -> None:
            calls.append(message.number)
            raise ValueError("not today")

        async with place.outside() as outside, bus, other:
            for number in range(3):
                await bus.publish(Fast(number))
            await eventually(lambda: len(calls) == 3 and len(numbers) == 3)
            await eventually(lambda: bus.counts()["tests/Fast"].get("failed", 0) >= 3)
            assert await outside.everything() == []
        assert sorted(calls) == [0, 1, 2], "never a second attempt"

    run(law)


def test_nothing_is_kept_for_who_comes_later(place: Place) -> None:
    async def law() -> None:
        late = place.bus()
        numbers = keep(late, Fast)
        async with place.outside() as outside, place.bus(consume=False) as publisher:
            await publisher.publish(Fast(1))
            async with late:
                await publisher.publish(Fast(2))
                await eventually(lambda: numbers)
            assert await outside.everything() == []
        assert numbers == [2]

    run(law)


def test_a_stored_type_may_be_sent_at_qos_0_and_is_not_stored_then(place: Place) -> None:
    async def law() -> None:
        bus = place.bus()
        numbers = keep(bus, Order)
        async with place.outside() as outside, bus:
            receipt = await bus.publish(Order(1), qos=QualityOfService.AT_MOST_ONCE)
            assert receipt.sequence == ""
            await eventually(lambda: numbers == [1])
            assert await outside.everything() == []

    run(law)


def test_what_was_received_is_handled_before_a_bus_ends(place: Place) -> None:
    async def law() -> None:
        started, ends = asyncio.Event(), []
        bus = place.bus()

        @bus.handle(Fast, concurrency=1)
        async def handle(message: Fast) -> None:
            started.set()
            await asyncio.sleep(0.001)
            ends.append(message.number)

        async with place.bus(consume=False) as publisher, bus:
            await publisher.publish_many(Fast(number) for number in range(50))
            await publisher.health()  # the server has taken all of it in
            await started.wait()
        assert sorted(ends) == list(range(50))

    run(law)
