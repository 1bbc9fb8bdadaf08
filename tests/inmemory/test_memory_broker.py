"""What is particular to the transport in memory; the rest it shares with the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import attrs
import pytest
from msgspec.structs import replace

from catga import Bus, ConfigurationError, Event, Parts, QualityOfService
from catga.engine.replaying import FoundLetter
from catga.spi import Completion, Kind, Outgoing, Receipt, Record, Source, Subject
from catga.testing import ManualClock, settle_loop
from catga_inmemory.broker import acquire, release
from catga_inmemory.groups import Group, GroupMember
from catga_inmemory.inbox import RecordTable
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
        stream.append([replace(outgoing("later", "1"), not_before=due)])
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
        stream.append([replace(outgoing("later", "2"), not_before=due)])
        release("timers", broker)
        await clock.advance(100)
        assert not group.ready
        assert [entry.open_groups for entry in stream.entries.values()] == [0]

    run(law)


def test_who_waits_for_a_batch_waits_for_the_last_of_it_in_every_group() -> None:
    async def law() -> None:
        stream = Stream(ManualClock())
        groups = [stream.declare(Source("ns", "Note", name, durable=True)) for name in "ab"]
        receipts = stream.append([outgoing("x", str(number)) for number in range(3)])
        waiting = asyncio.create_task(stream.wait_handled([each.sequence for each in receipts]))
        hands = [group.hand() for group in groups]
        taken = [
            delivery
            for group, hand in zip(groups, hands, strict=True)
            for delivery in group.take(3, hand)
        ]
        for delivery in reversed(taken):  # the first of all is the last
            await settle_loop()
            assert not waiting.done()
            delivery.token.finish_one()
        await waiting

    run(law)


class Waiting(GroupMember):
    """A member that waits with room for so many."""

    def __init__(self, room: int) -> None:
        self.room, self.calls = room, 0

    def wake(self) -> int:
        self.calls += 1
        return self.room


def test_a_batch_wakes_as_many_members_as_it_needs_and_no_more() -> None:
    async def law() -> None:
        stream = Stream(ManualClock())
        group = stream.declare(Source("ns", "Note", "g", durable=True))
        group.members += [Waiting(0), Waiting(2), Waiting(1), Waiting(5)]
        stream.append([outgoing("x", str(number)) for number in range(3)])
        assert [member.calls for member in group.members] == [1, 1, 1, 0]  # type: ignore[attr-defined]  # those above

    run(law)


def test_what_members_left_behind_comes_again_as_each_lease_ends() -> None:
    async def law() -> None:
        clock = ManualClock()
        stream = Stream(clock)
        group = stream.declare(Source("ns", "Note", "g", durable=True, lease=10))
        stream.append([outgoing("early", "1"), outgoing("late", "2")])
        first, second = group.hand(), group.hand()
        group.take(1, first)
        await clock.advance(4)
        group.take(1, second)
        group.leave(second)
        left = group.leave(first)
        for seconds, ready in (
            (5, []),
            (1.5, [b"early"]),
            (3, [b"early"]),
            (1, [b"early", b"late"]),
        ):
            await clock.advance(seconds)
            assert [entry.body for entry in group.ready] == ready
        assert not left
        again = group.take(5, group.hand())
        assert [delivery.attempt for delivery in again] == [2, 2]

    run(law)


def test_a_record_is_kept_for_its_time_and_then_makes_room() -> None:
    table = RecordTable()
    records = [Record(Completion("ns", "g", "Note", str(number))) for number in range(100)]
    for place, record in enumerate(records):
        table.note(record, now=place, until=place + 50.0)
    kept = [int(each.key.message_id) for each in records if table.find(each.key, 99.0)]
    assert kept == list(range(50, 100))
    table.note(records[50], now=99.0, until=500.0)
    assert table.find(records[50].key, 99.5)
    assert not table.find(records[50].key, 100.0), "what is there is not written again"
    assert len(table) == 50


def test_stored_once_for_ever_a_letter_keeps_its_body_until_it_is_removed() -> None:
    async def law() -> None:
        bus = Bus(
            "inmemory://",
            service="a",
            settings={"dedupe_window": "none", "attempts": 1, "wait_handled": False},
            parts=Parts(clock=ManualClock()),
        )

        @bus.handle(Note)
        async def handle(note: Note) -> None:
            if note.text == "fails":
                raise ValueError(note.text)

        async def letters() -> list[FoundLetter]:
            await settle_loop()
            return [found async for found in bus.dead_letters.find()]

        async with bus:
            await bus.publish(Note("fails"))
            before = await letters()
            await bus.publish(Note("trims"))
            assert await letters() == before
            assert before[0].letter is not None
            assert b"fails" in before[0].letter.body
            await bus.dead_letters.purge(before)
            assert await letters() == []

    run(law)
