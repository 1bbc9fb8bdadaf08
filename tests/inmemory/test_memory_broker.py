"""What is particular to the transport in memory; the rest it shares with the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import attrs
import pytest

from catga import Bus, ConfigurationError, Event, Parts, QualityOfService
from catga.spi import Kind, Outgoing, Receipt, Source, Subject
from catga.testing import ManualClock, settle_loop
from catga_inmemory.broker import acquire, release
from catga_inmemory.groups import Group
from catga_inmemory.log import Stream


@attrs.frozen
class Note(Event):
    text: str


@attrs.frozen
class Tick(Event):
    qos = QualityOfService.AT_MOST_ONCE
    number: int


def run(law: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await law()

    asyncio.run(bounded())


def heard(bus: Bus) -> list[str]:
    seen: list[str] = []

    @bus.handle(Note)
    async def handle(note: Note) -> None:
        seen.append(note.text)

    return seen


def test_a_url_without_a_name_is_private_and_one_with_a_name_is_shared() -> None:
    async def law() -> None:
        one, two = Bus("inmemory://", service="a"), Bus("inmemory://", service="b")
        three, four = Bus("inmemory://x", service="a"), Bus("inmemory://x", service="b")
        seen = {name: heard(bus) for name, bus in zip("1234", (one, two, three, four), strict=True)}
        async with one, two, three, four:
            await one.publish(Note("private"))
            await three.publish(Note("shared"))
        assert seen == {"1": ["private"], "2": [], "3": ["shared"], "4": ["shared"]}

    run(law)


def test_a_shared_broker_is_gone_with_its_last_user() -> None:
    async def law() -> None:
        async with Bus("inmemory://brief", service="a") as bus:
            await bus.publish(Note("forgotten"))
        later = Bus("inmemory://brief", service="a")
        seen = heard(later)
        async with later:
            await settle_loop()
        assert seen == []

    run(law)


def test_a_name_that_cannot_stand_in_a_subject_is_refused() -> None:
    async def law() -> None:
        with pytest.raises(ConfigurationError, match="inmemory"):
            await Bus("inmemory://a.b", service="a").__aenter__()

    run(law)


def test_a_listener_too_far_behind_loses_the_newest_and_it_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def law() -> None:
        bus = Bus("inmemory://?live_buffer=5", service="a", parts=Parts(clock=ManualClock()))
        seen: list[int] = []

        @bus.handle(Tick)
        async def handle(tick: Tick) -> None:
            seen.append(tick.number)

        async with bus:
            await settle_loop()
            for number in range(8):
                await bus.publish(Tick(number))
            await settle_loop()
        assert seen == [0, 1, 2, 3, 4]
        assert "slow-consumer" in caplog.text

    run(law)


def outgoing(text: str, message_id: str) -> Outgoing:
    subject = Subject("ns", Kind.LOG, "Note")
    return Outgoing(subject, text.encode(), message_id, QualityOfService.AT_LEAST_ONCE)


def finish(group: Group) -> None:
    """Take what is next and settle it for good."""
    hand = group.hand()
    (delivery,) = group.take(1, hand)
    del hand[delivery.token]
    delivery.token.finish_one()


def test_entries_leave_memory_once_every_group_has_settled_them_and_w_has_passed() -> None:
    async def law() -> None:
        clock = ManualClock()
        stream = Stream(clock)
        stream.dedupe_window = stream.retention = 60
        group = stream.declare(Source("ns", "Note", "g", durable=True))
        (first,) = stream.append([outgoing("one", "1")])
        stream.append([outgoing("two", "2")])
        finish(group)
        assert stream.append([outgoing("again", "1")]) == [
            Receipt("1", first.sequence, duplicate=True)
        ]
        await clock.advance(61)
        stream.append([outgoing("three", "3")])
        texts = [entry.body for entry in stream.entries.values()]
        assert texts == [b"two", b"three"], "what is unsettled stays, however old"
        assert not stream.append([outgoing("again", "1")])[0].duplicate

    run(law)


def test_without_a_group_nothing_is_dropped() -> None:
    async def law() -> None:
        clock = ManualClock()
        stream = Stream(clock)
        stream.dedupe_window = 1
        for number in range(3):
            stream.append([outgoing("x", str(number))])
            await clock.advance(10)
        assert len(stream.entries) == 3

    run(law)


def test_what_is_younger_than_the_retention_stays_for_groups_that_come() -> None:
    async def law() -> None:
        clock = ManualClock()
        stream = Stream(clock)
        stream.dedupe_window, stream.retention = 10, 100
        group = stream.declare(Source("ns", "Note", "g", durable=True))
        stream.append([outgoing("one", "1")])
        finish(group)
        for seconds, left in ((60, [b"one", b"two"]), (60, [b"two", b"two"])):
            await clock.advance(seconds)
            stream.append([outgoing("two", str(seconds + clock.monotonic()))])
            assert [entry.body for entry in stream.entries.values()] == left

    run(law)


def test_what_waits_for_its_time_keeps_nothing_else_in_memory() -> None:
    async def law() -> None:
        clock = ManualClock()
        stream = Stream(clock)
        stream.dedupe_window = stream.retention = 10
        group = stream.declare(Source("ns", "Note", "g", durable=True))
        due = clock.now() + timedelta(seconds=100)
        stream.append([attrs.evolve(outgoing("later", "1"), not_before=due)])
        stream.append([outgoing("now", "2")])
        finish(group)
        await clock.advance(50)
        stream.append([outgoing("next", "3")])
        assert [entry.body for entry in stream.entries.values()] == [b"next"]
        await clock.advance(51)
        assert [delivery.body for delivery in group.take(5, group.hand())] == [b"next", b"later"]

    run(law)


def test_a_broker_leaves_no_timer_behind() -> None:
    async def law() -> None:
        clock = ManualClock()
        broker = acquire("timers", clock)
        stream = broker.stream("ns", "Note")
        group = stream.declare(Source("ns", "Note", "g", durable=True, lease=5))
        stream.append([outgoing("one", "1")])
        hand = group.hand()
        (delivery,) = group.take(1, hand)
        del hand[delivery.token]
        group.give_back(delivery.token, 2, 30)
        due = clock.now() + timedelta(seconds=50)
        stream.append([attrs.evolve(outgoing("later", "2"), not_before=due)])
        release("timers", broker)
        await clock.advance(100)
        assert not group.ready
        assert [entry.open_groups for entry in stream.entries.values()] == [0]

    run(law)
