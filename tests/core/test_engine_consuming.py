"""What a consumer does with its deliveries, in memory, on a manual clock."""

from __future__ import annotations

import asyncio
import itertools
import json
from contextvars import ContextVar
from typing import Any

import attrs
import pytest

from catga import CapabilityError, ConfigurationError, Context, Event, Message
from catga.spi import (
    Capabilities,
    Capability,
    Conflict,
    Kind,
    Lost,
    Outgoing,
    QualityOfService,
    Subject,
)
from catga.testing import settle_loop
from catga_inmemory.subscriptions import LogSubscription
from catga_inmemory.transport import MemoryTransport
from core.engine_kit import (
    Fast,
    Once,
    Order,
    Probe,
    broker_of,
    dead_letters,
    eventually,
    run,
    stored,
)


def test_a_failed_attempt_comes_again_after_its_delay_as_the_next_attempt() -> None:
    async def law(probe: Probe) -> None:
        attempts: list[tuple[int, float]] = []
        bus = probe.bus({"attempts": 3, "backoff_base": 10, "backoff_cap": 10})

        @bus.handle(Order)
        async def handle(order: Order, context: Context) -> None:
            attempts.append((context.attempt, probe.clock.monotonic()))
            if context.attempt < 3:
                raise ValueError("not yet")

        async with bus:
            await bus.publish(Order(1))
            await eventually(lambda: len(attempts) == 1)
            await probe.pass_time(0.9)
            assert len(attempts) == 1, "a tenth of the backoff is the least"
            await probe.pass_time(25)
            assert [attempt for attempt, _ in attempts] == [1, 2, 3]
            await probe.pass_time(1000)
            assert len(attempts) == 3, "handled is handled"

    run(law)


def test_the_last_failed_attempt_becomes_a_dead_letter_with_cause_and_bytes() -> None:
    async def law(probe: Probe) -> None:
        calls: list[int] = []
        bus = probe.bus({"attempts": 2})

        @bus.handle(Order)
        async def handle(order: Order, context: Context) -> None:
            calls.append(context.attempt)
            raise ValueError("never")

        async with bus:
            receipt = await bus.publish(Order(7))
            await probe.pass_time(5)
            await eventually(lambda: dead_letters(bus, "Order"))
            letter = json.loads(dead_letters(bus, "Order")[0])["data"]
            assert letter["cause"] == "attempts exhausted"
            assert letter["attempts"] == 2
            assert "ValueError: never" in letter["traceback"]
            assert letter["message_id"] == receipt.message_id
            assert letter["body_base64"]
            await probe.pass_time(1000)
            assert calls == [1, 2]
            assert bus.counts()["tests/Order"]["dead-letter"] == 1

    run(law)


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe not json",
        b"{}",
        b'{"specversion":"1.0","id":"x","type":"Unknown","source":"s","data":{"number":1}}',
        b'{"specversion":"1.0","id":"x","type":"Order","source":"s","data":{"number":"one"}}',
    ],
    ids=["garbage", "no envelope", "unknown type", "wrong field type"],
)
def test_poison_is_parked_after_one_delivery_and_stops_nobody(body: bytes) -> None:
    async def law(probe: Probe) -> None:
        seen: list[int] = []
        bus = probe.bus()

        @bus.handle(Order)
        async def handle(order: Order) -> None:
            seen.append(order.number)

        async with bus:
            subject = Subject(bus.namespace, Kind.LOG, "Order")
            poison = Outgoing(subject, body, "poison", QualityOfService.AT_LEAST_ONCE)
            broker_of(bus).stream(bus.namespace, "Order").append([poison])
            await bus.publish(Order(1))
            await eventually(lambda: seen == [1] and dead_letters(bus, "Order"))
            letter = json.loads(dead_letters(bus, "Order")[0])["data"]
            assert letter["cause"] == "poison"
            assert letter["attempts"] == 1
            assert bus.counts()["tests/Order"]["poison"] == 1

    run(law)


def test_poison_at_qos_0_is_counted_and_dropped() -> None:
    async def law(probe: Probe) -> None:
        seen: list[int] = []
        bus = probe.bus()

        @bus.handle(Fast)
        async def handle(message: Fast) -> None:
            seen.append(message.number)

        async with bus:
            subject = Subject(bus.namespace, Kind.LIVE, "Fast")
            broker_of(bus).send_live(
                [Outgoing(subject, b"garbage", "poison", QualityOfService.AT_MOST_ONCE)]
            )
            await bus.publish(Fast(1))
            await eventually(lambda: seen == [1])
            assert bus.counts()["tests/Fast"]["poison"] == 1
            assert not dead_letters(bus, "Fast")

    run(law)


def test_a_handler_that_hangs_is_cancelled_and_its_message_comes_again() -> None:
    async def law(probe: Probe) -> None:
        ends: list[str] = []
        bus = probe.bus({"handler_timeout": 2, "backoff_base": 1, "attempts": 3})

        @bus.handle(Order)
        async def handle(order: Order, context: Context) -> None:
            if context.attempt == 1:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    ends.append("cancelled")
                    raise
            ends.append("handled")

        async with bus:
            await bus.publish(Order(1))
            await probe.pass_time(10)
            assert ends == ["cancelled", "handled"]

    run(law)


def test_the_lease_of_a_long_handler_is_kept_and_nobody_else_runs_it() -> None:
    async def law(probe: Probe) -> None:
        runs: list[str] = []
        go = asyncio.Event()
        settings = {"lease": 3, "handler_timeout": None}
        first, second = probe.bus(settings), probe.bus(settings)

        for bus in (first, second):

            @bus.handle(Order)
            async def handle(order: Order) -> None:
                runs.append("run")
                await go.wait()

        async with first, second:
            await first.publish(Order(1))
            await probe.pass_time(100)
            assert runs == ["run"]
            go.set()
            await probe.pass_time(10)
            assert runs == ["run"]
            done = [bus.counts()["tests/Order"].get("ack", 0) for bus in (first, second)]
            assert sum(done) == 1

    run(law)


def test_a_handler_whose_lease_is_lost_is_cancelled_and_settles_nothing() -> None:
    async def law(probe: Probe) -> None:
        ends: list[str] = []
        bus = probe.bus({"lease": 3, "handler_timeout": None})

        @bus.handle(Order)
        async def handle(order: Order, context: Context) -> None:
            if context.attempt > 1:
                return
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ends.append("cancelled")
                raise

        async with bus:
            await bus.publish(Order(1))
            group = broker_of(bus).stream(bus.namespace, "Order").groups["tests"]
            await eventually(lambda: not group.ready)
            for hand in group._hands:
                hand.clear()  # as another owner's claim leaves it
            await probe.pass_time(3)
            assert ends == ["cancelled"]
            assert bus.counts()["tests/Order"]["lost"] == 1
            assert "ack" not in bus.counts()["tests/Order"]

    run(law)


def test_what_a_group_completed_at_qos_2_is_not_handled_again() -> None:
    async def law(probe: Probe) -> None:
        seen: list[int] = []
        settings = {"dedupe_window": 20, "publish_deadline": 5}
        bus = probe.bus(settings)

        @bus.handle(Once)
        async def handle(message: Once) -> None:
            seen.append(message.number)

        async with bus:
            message = Once(1)
            assert not (await bus.publish(message)).duplicate
            assert (await bus.publish(message)).duplicate
            await eventually(lambda: seen == [1])
            await probe.pass_time(60)
            again = await bus.publish(message)
            assert not again.duplicate, "the window W has passed, so it is stored once more"
            await eventually(lambda: bus.counts()["tests/Once"]["ack"] == 2)
            assert seen == [1]

    run(law)


def test_two_copies_of_one_id_in_hand_wait_for_each_other() -> None:
    async def law(probe: Probe) -> None:
        runs: list[int] = []
        go = asyncio.Event()
        bus = probe.bus({"attempts": 5})

        @bus.handle(Once)
        async def handle(message: Once, context: Context) -> None:
            runs.append(message.number)
            await go.wait()

        async with bus:
            message = Once(1)
            await bus.publish(message)
            await bus.send(message, to="tests")  # another subject: a second stored copy
            await eventually(lambda: runs == [1])
            go.set()
            await eventually(lambda: bus.counts()["tests/Once"].get("ack") == 2)
            assert runs == [1]

    run(law)


def test_a_copy_that_is_lost_while_it_waits_lets_no_other_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def law(probe: Probe) -> None:
        runs: list[int] = []
        go = asyncio.Event()
        bus = probe.bus()

        @bus.handle(Once)
        async def handle(message: Once, context: Context) -> None:
            runs.append(message.number)
            await go.wait()

        right = LogSubscription.extend

        async def extend(self: LogSubscription, batch: Any) -> Any:
            results = await right(self, batch)
            last = [delivery.subject.kind is Kind.REDO for delivery in batch]
            return [Lost() if one else each for one, each in zip(last, results, strict=True)]

        async with bus:
            message = Once(1)
            await bus.publish(message)
            await bus.send(message, to="tests")
            subject = Subject(bus.namespace, Kind.REDO, "Once", "tests")
            body = stored(bus, "Once")[0].body
            redo = Outgoing(subject, body, "again", QualityOfService.EXACTLY_ONCE)
            await bus.transport.publish([redo])
            await eventually(lambda: bus.counts()["tests/Once"]["received"] == 3)
            monkeypatch.setattr(LogSubscription, "extend", extend)
            await probe.pass_time(25)  # leases are renewed meanwhile
            lost, began = bus.counts()["tests/Once"].get("lost"), list(runs)
            go.set()
            await eventually(lambda: bus.counts()["tests/Once"].get("ack", 0) >= 2)
        assert lost
        assert began == runs == [1]

    run(law)


def test_a_failed_first_copy_hands_over_to_the_second() -> None:
    async def law(probe: Probe) -> None:
        runs: list[str] = []
        bus = probe.bus({"attempts": 5, "backoff_base": 60})

        @bus.handle(Once)
        async def handle(message: Once, context: Context) -> None:
            runs.append(context.subject)
            await asyncio.sleep(0)
            if len(runs) == 1:
                raise ValueError("the first fails")

        async with bus:
            message = Once(1)
            await bus.publish(message)
            await bus.send(message, to="tests")
            await eventually(lambda: len(runs) == 2)
            await probe.pass_time(300)
            assert len(runs) == 2
            assert bus.counts()["tests/Once"]["ack"] == 2

    run(law)


def test_concurrency_is_what_was_asked_for_and_the_prefetch_bounds_what_is_in_hand() -> None:
    async def law(probe: Probe) -> None:
        running: set[int] = set()
        most = 0
        go = asyncio.Event()
        bus = probe.bus({"concurrency": 3, "prefetch": 8, "handler_timeout": None})

        @bus.handle(Order)
        async def handle(order: Order) -> None:
            nonlocal most
            running.add(order.number)
            most = max(most, len(running))
            await go.wait()
            running.discard(order.number)

        async with bus:
            await bus.publish_many(Order(n) for n in range(50))
            await eventually(lambda: len(running) == 3)
            await probe.pass_time(1)
            group = broker_of(bus).stream(bus.namespace, "Order").groups["tests"]
            assert len(group.ready) == 42
            go.set()
            await eventually(lambda: bus.counts()["tests/Order"].get("ack") == 50)
            assert most == 3

    run(law)


@pytest.mark.parametrize("kind", [Fast, Order, Once])
def test_handlers_that_wait_for_nothing_leave_others_their_turn(kind: type[Any]) -> None:
    async def law(probe: Probe) -> None:
        handled, turns = 0, list[int]()
        bus = probe.bus()

        @bus.handle(kind)
        async def handle(_: Any) -> None:
            nonlocal handled
            handled += 1
            probe.clock.spend(0.05)  # it computes

        async with bus:
            await bus.publish_many(kind(number) for number in range(100))
            while handled < 100:
                turns.append(handled)
                await asyncio.sleep(0)
        assert max(after - before for before, after in itertools.pairwise([*turns, 100])) <= 2

    run(law)


def test_a_drain_does_not_wait_for_all_that_handlers_compute() -> None:
    async def law(probe: Probe) -> None:
        handled = 0
        bus = probe.bus({"drain_deadline": 1})

        @bus.handle(Order)
        async def handle(_: Order) -> None:
            nonlocal handled
            handled += 1
            probe.clock.spend(0.05)

        async with bus:
            await bus.publish_many(Order(number) for number in range(200))
            await eventually(lambda: handled)
        assert handled < 100, "the others have the rest at once"

    run(law)


def test_a_slow_settlement_does_not_hold_up_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    async def law(probe: Probe) -> None:
        numbers: list[int] = []
        goes_on = asyncio.Event()
        bus = probe.bus()

        @bus.handle(Once)
        async def handle(once: Once) -> None:
            numbers.append(once.number)

        right = LogSubscription.commit

        async def commit(self: LogSubscription, batch: Any) -> Any:
            if len(numbers) == 1:
                await goes_on.wait()
            return await right(self, batch)

        monkeypatch.setattr(LogSubscription, "commit", commit)
        async with bus:
            await bus.publish(Once(1))
            await eventually(lambda: numbers == [1])
            await settle_loop()
            await bus.publish(Once(2))
            try:
                await eventually(lambda: bus.counts()["tests/Once"].get("ack") == 1)
            finally:
                goes_on.set()
            await eventually(lambda: bus.counts()["tests/Once"].get("ack") == 2)
        assert numbers == [1, 2]

    run(law)


def test_drain_finishes_what_runs_and_gives_back_the_rest_at_once() -> None:
    async def law(probe: Probe) -> None:
        seen: list[tuple[str, int]] = []
        go = asyncio.Event()
        first = probe.bus({"concurrency": 1})
        second = probe.bus()

        @first.handle(Order)
        async def slow(order: Order) -> None:
            await go.wait()
            seen.append(("first", order.number))

        @second.handle(Order)
        async def quick(order: Order) -> None:
            seen.append(("second", order.number))

        async with first:
            await first.publish_many(Order(n) for n in range(5))
            await eventually(lambda: first._session.consumers[0]._pool._busy)  # type: ignore[union-attr]
            draining = asyncio.create_task(first.drain())
            async with second:
                await eventually(lambda: len(seen) == 4)
                go.set()
                report = await draining
                assert report == await first.drain()
                assert (report.handled, report.returned, report.abandoned) == (1, 4, 0)
                assert sorted(number for _, number in seen) == list(range(5))
                assert first.counts()["tests/Order"]["ack"] == 1

    run(law)


def test_drain_gives_up_on_a_handler_at_its_deadline_and_its_message_is_not_lost() -> None:
    async def law(probe: Probe) -> None:
        ends: list[str] = []
        first, second = probe.bus({"drain_deadline": 5}), probe.bus()

        @first.handle(Order)
        async def stuck(order: Order) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ends.append("stopped")

        @second.handle(Order)
        async def quick(order: Order) -> None:
            ends.append("handled")

        async with first:
            await first.publish(Order(1))
            await eventually(lambda: first._session.consumers[0]._pool._busy)  # type: ignore[union-attr]
            draining = asyncio.create_task(first.drain())
            await probe.pass_time(6)
            report = await draining
            assert report.abandoned == 1
            async with second:
                await probe.pass_time(60)
                assert ends == ["stopped", "handled"]

    run(law)


def test_qos_0_that_was_received_is_handled_before_the_bus_is_gone() -> None:
    async def law(probe: Probe) -> None:
        seen: list[int] = []
        bus = probe.bus({"concurrency": 1})

        @bus.handle(Fast)
        async def handle(message: Fast) -> None:
            await asyncio.sleep(0)
            seen.append(message.number)

        async with bus:
            for number in range(50):
                await bus.publish(Fast(number))
        assert seen == list(range(50))

    run(law)


def test_groups_are_independent_members_share_and_broadcast_listeners_all_get_it() -> None:
    async def law(probe: Probe) -> None:
        seen: list[str] = []
        buses = [probe.bus(), probe.bus()]
        for name, bus in zip("ab", buses, strict=True):

            @bus.handle(Order)
            async def member(order: Order, name: str = name) -> None:
                seen.append("member")

            @bus.handle(Order, group="audit")
            async def audit(order: Order, name: str = name) -> None:
                seen.append("audit")

            @bus.handle(Order, broadcast=True)
            async def listen(order: Order, name: str = name) -> None:
                seen.append("listener")

        async with buses[0], buses[1]:
            await buses[0].publish(Order(1))
            await buses[1].publish(Order(2), qos=QualityOfService.AT_MOST_ONCE)
            await eventually(lambda: len(seen) == 8)
            await probe.pass_time(60)
        assert sorted(seen) == ["audit"] * 2 + ["listener"] * 4 + ["member"] * 2

    run(law)


def test_two_listeners_of_one_type_in_one_bus_both_get_everything() -> None:
    async def law(probe: Probe) -> None:
        seen: list[str] = []
        bus = probe.bus()
        for name in "ab":

            @bus.handle(Order, broadcast=True)
            async def listen(order: Order, context: Context, name: str = name) -> None:
                seen.append(f"{name}{order.number}")

        async with bus:
            for number in range(3):
                await bus.publish(Order(number))
            await eventually(lambda: len(seen) == 6)
        assert sorted(seen) == ["a0", "a1", "a2", "b0", "b1", "b2"]

    run(law)


def test_a_transport_that_only_stores_serves_handlers_of_stored_types(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stores = Capabilities(frozenset({Capability.AT_LEAST_ONCE, Capability.EXACTLY_ONCE}))
    monkeypatch.setattr(MemoryTransport, "capabilities", stores)

    async def law(probe: Probe) -> None:
        seen: list[int] = []
        bus = probe.bus()

        @bus.handle(Order)
        async def handle(order: Order) -> None:
            seen.append(order.number)

        async with bus:
            await bus.publish(Order(1))
            await eventually(lambda: seen == [1])
            with pytest.raises(CapabilityError, match="at-most-once"):
                await bus.publish(Order(2), qos=QualityOfService.AT_MOST_ONCE)

        live = probe.bus()
        live.handle(Fast)(handle)
        with pytest.raises(CapabilityError, match="at-most-once"):
            await live.__aenter__()

    run(law)


def test_what_was_published_before_a_group_first_started_is_delivered_to_it() -> None:
    async def law(probe: Probe) -> None:
        seen: list[tuple[str, int]] = []
        sender, reader = probe.bus(consume=False), probe.bus()

        @reader.handle(Order)
        async def handle(order: Order) -> None:
            seen.append(("from the beginning", order.number))

        @reader.handle(Order, group="late", start="new")
        async def late(order: Order) -> None:
            seen.append(("new", order.number))

        async with sender:
            await sender.publish(Order(1))
            async with reader:
                await sender.publish(Order(2))
                await eventually(lambda: len(seen) == 3)
        assert sorted(seen) == [("from the beginning", 1), ("from the beginning", 2), ("new", 2)]

    run(law)


def test_context_variables_of_one_handler_do_not_reach_the_next() -> None:
    async def law(probe: Probe) -> None:
        variable: ContextVar[int] = ContextVar("variable", default=0)
        before: list[int] = []
        bus = probe.bus({"concurrency": 1})

        @bus.handle(Order)
        async def handle(order: Order) -> None:
            before.append(variable.get())
            variable.set(order.number)
            await asyncio.sleep(0)
            assert variable.get() == order.number

        async with bus:
            await bus.publish_many(Order(n) for n in range(1, 4))
            await eventually(lambda: bus.counts()["tests/Order"].get("ack") == 3)
        assert before == [0, 0, 0]

    run(law)


def test_a_received_message_keeps_its_identity_and_what_it_causes_is_correlated() -> None:
    async def law(probe: Probe) -> None:
        seen: list[Message] = []
        bus = probe.bus()

        @bus.handle(Order)
        async def first(order: Order) -> None:
            seen.append(order)
            await bus.publish(Once(order.number))

        @bus.handle(Once)
        async def second(message: Once) -> None:
            seen.append(message)

        async with bus:
            order = Order(1)
            await bus.publish(order)
            await eventually(lambda: len(seen) == 2)
        assert seen[0].message_id == order.message_id
        assert seen[0].created_at == order.created_at
        assert seen[1].correlation_id == order.message_id
        assert seen[1].message_id != order.message_id

    run(law)


class Panic(BaseException):
    """No `Exception`, as libraries in other languages raise."""


@attrs.frozen
class Touchy(Event):
    number: int

    def __attrs_post_init__(self) -> None:
        if self.number < 0 and TOUCHY.get():
            raise Panic("out of reach of `except Exception`")


TOUCHY: ContextVar[bool] = ContextVar("touchy", default=False)


def test_whatever_reading_a_message_ends_with_it_is_poison_and_others_go_on() -> None:
    async def law(probe: Probe) -> None:
        numbers: list[int] = []
        bus, sender = probe.bus(), probe.bus(consume=False)

        @bus.handle(Touchy)
        async def handle(touchy: Touchy) -> None:
            numbers.append(touchy.number)

        TOUCHY.set(True)  # in the tasks of the bus, which begin here
        async with bus:
            TOUCHY.set(False)
            async with sender:
                await sender.publish_many([Touchy(1), Touchy(-1), Touchy(2)])
                await eventually(lambda: numbers == [1, 2] and dead_letters(bus, "Touchy"))
            assert bus.counts()["tests/Touchy"]["poison"] == 1

    run(law)


def test_however_often_a_commit_meets_another_it_is_the_same_attempt_and_never_hot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def law(probe: Probe) -> None:
        attempts: list[int] = []
        bus = probe.bus()

        @bus.handle(Once)
        async def handle(once: Once, context: Context) -> None:
            attempts.append(context.attempt)
            context.transaction.write("key", b"1")

        right = LogSubscription.commit

        async def commit(self: LogSubscription, batch: Any) -> Any:
            return [Conflict()] * len(batch) if len(attempts) <= 150 else await right(self, batch)

        monkeypatch.setattr(LogSubscription, "commit", commit)
        async with bus:
            await bus.publish(Once(1))
            await eventually(lambda: attempts)
            await probe.pass_time(0.5)
            assert 1 < len(attempts) < 40, "it waits longer and longer, a second at the most"
            await probe.pass_time(200)
            await eventually(lambda: bus.counts()["tests/Once"].get("ack"))
            assert bus.counts()["tests/Once"]["conflict"] == 150
        assert attempts == [1] * 151

    run(law)


def test_what_comes_after_the_end_of_a_handler_is_no_part_of_its_transaction() -> None:
    async def law(probe: Probe) -> None:
        kept: list[Context] = []
        bus = probe.bus()

        @bus.handle(Once)
        async def handle(once: Once, context: Context) -> None:
            context.transaction.write("key", b"1")
            kept.append(context)

        async with bus:
            await bus.publish(Once(1))
            await eventually(lambda: bus.counts()["tests/Once"].get("ack"))
            transaction = kept[0].transaction
            with pytest.raises(ConfigurationError, match="Once is over"):
                transaction.write("late", b"2")
            with pytest.raises(ConfigurationError, match="is over"):
                await transaction.publish(Order(1))

    run(law)
