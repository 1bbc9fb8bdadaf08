"""At least once, over every transport: stored means handled in the end, or a dead letter."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

from bus.bus_kit import Fast, Order, Place, eventually, keep, run, settled
from catga import Context
from catga.spi import Kind

HUNDRED = list(range(100))


def test_what_was_published_before_the_groups_first_start_is_delivered(place: Place) -> None:
    async def law() -> None:
        async with place.outside() as outside:
            async with place.bus(consume=False, publishes=[Order]) as publisher:
                receipt = await publisher.publish(Order(1))
                assert receipt.sequence
                assert not receipt.duplicate
                await publisher.send(Order(2), to="tests")
            late, newcomer = place.bus(), place.bus(group="newcomer")
            numbers, new = keep(late, Order), keep(newcomer, Order, start="new")
            async with late, newcomer:
                await eventually(lambda: sorted(numbers) == [1, 2])
                await late.publish(Order(3))
                await eventually(lambda: new)
                await eventually(lambda: len(numbers) == 3)
                await settled(outside, "Order", "tests", "newcomer")
        assert sorted(numbers) == [1, 2, 3]
        assert new == [3], "it asked for what is new"

    run(law)


def test_members_of_a_group_share_and_every_group_gets_everything(place: Place) -> None:
    async def law() -> None:
        members = [place.bus(group="shared", settings={"prefetch": 8}) for _ in range(2)]
        other = place.bus(group="other")
        shared, alone = [keep(bus, Order) for bus in members], keep(other, Order)
        async with place.outside() as outside, AsyncExitStack() as running:
            for bus in (*members, other):
                await running.enter_async_context(bus)
            async with place.bus(consume=False) as publisher:
                summary = await publisher.publish_many(Order(number) for number in HUNDRED)
                assert (summary.accepted, summary.failures) == (100, ())
            await eventually(lambda: len(shared[0]) + len(shared[1]) >= 100 <= len(alone))
            await settled(outside, "Order", "shared", "other")
        assert sorted(shared[0] + shared[1]) == HUNDRED, "no fault, so no second time"
        assert sorted(alone) == HUNDRED
        assert all(shared), "both took part"

    run(law)


def test_a_failing_handler_is_tried_again_then_parked(place: Place) -> None:
    async def law() -> None:
        attempts: dict[int, list[int]] = {}
        bus = place.bus(settings={"attempts": 3})

        @bus.handle(Order)
        async def handle(order: Order, context: Context) -> None:
            attempts.setdefault(order.number, []).append(context.attempt)
            if order.number == 0 or context.attempt < 2:
                raise LookupError("no such number")

        async with place.outside() as outside, bus:
            await asyncio.gather(*(bus.publish(Order(number)) for number in range(3)))
            await eventually(lambda: bus.counts()["tests/Order"].get("dead-letter"))
            await settled(outside, "Order", "tests")
            (letter,) = await outside.dead("Order")
            (original,) = [
                body
                for body in await outside.stored(outside.subject(Kind.LOG, "Order"))
                if json.loads(body)["data"] == {"number": 0}
            ]
        assert attempts == {0: [1, 2, 3], 1: [1, 2], 2: [1, 2]}
        assert letter["cause"] == "attempts exhausted"
        assert letter["error"] == "LookupError: no such number"
        assert letter["attempts"] == 3
        assert letter["body"] == original

    run(law)


def test_a_handler_that_hangs_is_ended_and_tried_again(place: Place) -> None:
    async def law() -> None:
        attempts: list[int] = []
        bus = place.bus(settings={"handler_timeout": 0.05})

        @bus.handle(Order)
        async def handle(order: Order, context: Context) -> None:
            attempts.append(context.attempt)
            if context.attempt == 1:
                await asyncio.Event().wait()

        async with place.outside() as outside, bus:
            await bus.publish(Order(1))
            await eventually(lambda: attempts == [1, 2])
            await settled(outside, "Order", "tests")

    run(law)


def test_a_slow_handler_keeps_its_message(place: Place) -> None:
    async def law() -> None:
        attempts: list[int] = []
        lease = {"lease": 0.6, "wait_handled": False}
        first, second = place.bus(settings=lease), place.bus(settings=lease)
        goes_on = asyncio.Event()

        async def handle(order: Order, context: Context) -> None:
            attempts.append(context.attempt)
            await goes_on.wait()

        for bus in (first, second):
            bus.handle(Order)(handle)
        async with place.outside() as outside, first, second:
            await first.publish(Order(1))
            loop = asyncio.get_running_loop()
            until = loop.time() + 1.5  # more than two leases
            await eventually(lambda: loop.time() > until)
            goes_on.set()
            await settled(outside, "Order", "tests")
        assert attempts == [1]

    run(law)


def test_send_reaches_only_its_group(place: Place) -> None:
    async def law() -> None:
        near, far = place.bus(group="near"), place.bus(group="far")
        got = [keep(near, Order), keep(far, Order)]
        async with place.outside() as outside, near, far:
            await far.send(Order(1), to="near")
            await near.send(Order(2), to="far")
            await near.publish(Order(3))
            await eventually(lambda: [len(each) for each in got] == [2, 2])
            await settled(outside, "Order", "near", "far")
        assert [sorted(each) for each in got] == [[1, 3], [2, 3]]

    run(law)


def test_a_handler_may_publish_and_what_it_publishes_names_its_cause(place: Place) -> None:
    async def law() -> None:
        causes: list[str | None] = []
        bus = place.bus(settings={"concurrency": 1, "prefetch": 1, "publish_window": 1})

        @bus.handle(Order)
        async def handle(order: Order) -> None:
            if order.number:
                await bus.publish(Order(order.number - 1))
            await bus.publish(Fast(order.number))

        @bus.handle(Fast)
        async def note(message: Fast, context: Context) -> None:
            causes.append(context.correlation_id)

        async with bus:
            first = Order(5)
            await bus.publish(first)
            await eventually(lambda: len(causes) == 6)
        assert set(causes) == {first.message_id}

    run(law)


def test_a_broadcast_listener_gets_what_comes_while_it_listens(place: Place) -> None:
    async def law() -> None:
        listeners = [place.bus() for _ in range(2)]
        got = [keep(bus, Order, broadcast=True) for bus in listeners]
        async with place.bus(consume=False) as publisher:
            await publisher.publish(Order(1))
            async with listeners[0], listeners[1]:
                await publisher.publish(Order(2))
                await eventually(lambda: all(got))
        assert got == [[2], [2]]

    run(law)


def test_a_bus_that_ends_gives_back_what_it_did_not_begin(place: Place) -> None:
    async def law() -> None:
        first = place.bus(settings={"concurrency": 1, "wait_handled": False})
        second = place.bus()
        started, goes_on = asyncio.Event(), asyncio.Event()
        began: list[int] = []

        @first.handle(Order)
        async def handle(order: Order) -> None:
            began.append(order.number)
            started.set()
            await goes_on.wait()

        numbers = keep(second, Order)
        async with place.outside() as outside:
            async with first:
                await first.publish_many(Order(number) for number in range(20))
                await started.wait()
                draining = asyncio.create_task(first.drain())
                await asyncio.sleep(0)
                goes_on.set()
                drained = await draining
            async with second:
                await settled(outside, "Order", "tests")
        assert drained.abandoned == 0
        assert sorted(began + numbers) == list(range(20)), "each once: no lease had to end"

    run(law)


def test_when_all_have_left_only_lasting_groups_remain(place: Place) -> None:
    async def law() -> None:
        lasting, listener, asker = place.bus(), place.bus(), place.bus(group="asker")
        keep(lasting, Order)
        numbers = keep(listener, Order, broadcast=True)
        async with place.outside() as outside:
            async with lasting, listener, asker:
                await asker.publish(Order(1))
                await eventually(lambda: numbers)
                assert len(await outside.groups("Order")) == 2
                await settled(outside, "Order", "tests")
                assert await outside.is_heard("Order")
            assert await outside.groups("Order") == {"tests"}
            assert not await outside.is_heard("Order")

    run(law)
