"""The sample's transport by itself: settlement, leases, commits, what is in the file."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import attrs
import pytest
from catga_sample import queues
from catga_sample.transport import SampleTransport
from msgspec.structs import replace

from catga.errors import (
    CapabilityError,
    ConfigurationError,
    ConnectionLost,
    PayloadTooLarge,
)
from catga.spi import (
    Ack,
    Capability,
    Commit,
    Completion,
    Done,
    EventKind,
    Kind,
    Lost,
    Nack,
    Receipt,
    Record,
    Rejected,
    Settle,
    Source,
    Subject,
    TransportEvent,
    Unknown,
)
from sample_plugin.sample_kit import (
    GROUP,
    LOG,
    Noticed,
    Stored,
    bus_on,
    count,
    enter,
    eventually,
    keep,
    one,
    opened,
    outgoing,
    run,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "messages.db"


def test_what_it_does_not_declare_is_refused(file: Path) -> None:
    async def law() -> None:
        async with opened(file) as transport:
            assert Capability.HANDLED not in transport.capabilities
            with pytest.raises(CapabilityError):
                await transport.wait_handled([])

    run(law)


def test_a_slow_listener_loses_the_newest_and_it_is_said(file: Path) -> None:
    async def law() -> None:
        events: list[TransportEvent] = []
        live = Subject("ns", Kind.LIVE, "Note")
        async with opened(file, events) as transport:
            subscription = await transport.subscribe(Source("ns", "Note"))
            assert events == []
            await transport.publish([outgoing(str(number), live) for number in range(5)])
            assert [event.kind for event in events] == [EventKind.SLOW_CONSUMER]
            await subscription.drain()
            await transport.publish([outgoing("late", live)])
            assert len(await subscription.receive(10, 0)) == 3, "drained: what came is still there"
            assert await subscription.receive(10, 5) == []

    run(law)


def test_an_id_is_known_for_the_window_and_a_record_for_its_time(file: Path) -> None:
    async def law() -> None:
        async with opened(file, dedupe_window=0.05, completion_ttl=0.05) as transport:
            key = Completion("ns", "g", "Note", "a")
            assert transport.inbox is not None
            assert await transport.inbox.record([Record(key)]) == [Done()]
            (first,) = await transport.publish([outgoing("a")])
            await asyncio.sleep(0.06)
            (second,) = await transport.publish([outgoing("a")])
            assert isinstance(first, Receipt)
            assert isinstance(second, Receipt)
            assert not second.duplicate
            assert first.sequence != second.sequence
            assert await transport.inbox.completed([key]) == [False]

    run(law)


def test_attempts_and_replays_of_another_copy_go_on_counting(file: Path) -> None:
    async def law() -> None:
        async with opened(file) as transport:
            await transport.publish([replace(outgoing("a"), attempts=3, replays=2)])
            for source in (GROUP, attrs.evolve(GROUP, group="new")):
                found = await one(await transport.subscribe(source))
                assert (found.attempt, found.replays) == (4, 2)

    run(law)


# ---- settlement


def test_a_second_settlement_is_lost(file: Path) -> None:
    async def law() -> None:
        async with opened(file) as transport:
            await transport.publish([outgoing("a"), outgoing("b")])
            subscription = await transport.subscribe(GROUP)
            a, b = await subscription.receive(10, 5)
            first = [Settle(a, Ack()), Settle(b, Nack())]
            assert await subscription.settle(first) == [Done(), Done()]
            assert await subscription.settle([*first, Settle(b, Ack())]) == [Lost()] * 3
            assert await subscription.extend([a, b]) == [Lost(), Lost()]
            again = await one(subscription)
            assert (again.sequence, again.attempt) == (b.sequence, 2)
            assert await subscription.settle([Settle(b, Ack())]) == [Lost()]
            assert await subscription.settle([Settle(again, Ack())]) == [Done()]

    run(law)


def test_a_delay_is_a_lower_bound_and_the_window_an_upper(file: Path) -> None:
    async def law() -> None:
        async with opened(file) as transport:
            narrow = attrs.evolve(GROUP, window=2)
            subscription = await transport.subscribe(narrow)
            await transport.publish([outgoing(str(number)) for number in range(3)])
            first, second = await subscription.receive(10, 5)
            assert await subscription.receive(10, 0.01) == []
            loop = asyncio.get_running_loop()
            since = loop.time()
            await subscription.settle([Settle(first, Nack(0.2)), Settle(second, Ack())])
            third = await one(subscription)
            assert third.attempt == 1
            assert (await one(subscription)).sequence == first.sequence
            assert loop.time() - since >= 0.2

    run(law)


def test_a_lease_that_ended_has_no_owner(file: Path) -> None:
    async def law() -> None:
        async with opened(file) as transport, opened(file) as other:
            short = attrs.evolve(GROUP, lease=0.1)
            mine, theirs = await transport.subscribe(short), await other.subscribe(short)
            await transport.publish([outgoing("a")])
            late = await one(mine)
            taken = await one(theirs)
            assert (late.attempt, taken.attempt) == (1, 2)
            assert await mine.extend([late]) == [Lost()]
            assert await mine.settle([Settle(late, Ack())]) == [Lost()]
            assert await theirs.extend([taken]) == [Done()]
            assert await theirs.settle([Settle(taken, Ack())]) == [Done()]

    run(law)


def test_a_commit_records_and_acknowledges_in_one_step(file: Path) -> None:
    async def law() -> None:
        async with opened(file) as transport:
            assert transport.inbox is not None
            subscription = await transport.subscribe(attrs.evolve(GROUP, lease=0.1))
            await transport.publish([outgoing("a"), outgoing("b")])
            a, b = await subscription.receive(10, 5)
            keys = [Completion("ns", "g", "Note", name) for name in "ab"]
            assert await subscription.commit([Commit(a, Record(keys[0]))]) == [Done()]
            assert await transport.inbox.completed(keys) == [True, False]
            assert await subscription.commit([Commit(a, Record(keys[0]))]) == [Done()], (
                "it is recorded"
            )
            taken = await one(subscription)
            assert taken.sequence == b.sequence
            assert await subscription.commit([Commit(b, Record(keys[1]))]) == [Lost()]
            assert await transport.inbox.completed(keys) == [True, False]
            assert await subscription.commit([Commit(taken, Record(keys[1]))]) == [Done()]
        assert count(file, "work") == 0

    run(law)


def test_what_cannot_be_stored_is_said_to_each(file: Path) -> None:
    async def law() -> None:
        async with opened(file) as transport:
            large = replace(outgoing("a"), body=bytes(transport.max_payload_bytes or 0))
            larger = replace(outgoing("b"), body=large.body + b".")
            fits, refused = await transport.publish([large, larger])
            assert isinstance(fits, Receipt)
            assert isinstance(refused, Rejected)
            assert isinstance(refused.error, PayloadTooLarge)
            subscription = await transport.subscribe(GROUP)
            delivery = await one(subscription)
            await transport.close()
            (rejected,) = await transport.publish([outgoing("c")])
            assert isinstance(rejected, Rejected)
            assert isinstance(rejected.error, ConnectionLost)
            (unknown,) = await subscription.settle([Settle(delivery, Ack())])
            assert isinstance(unknown, Unknown)
            assert not (await transport.health()).ok

    run(law)


def test_a_commit_that_fails_is_in_doubt_and_what_failed_before_is_not(file: Path) -> None:
    async def law() -> None:
        async with opened(file) as transport:
            assert isinstance(transport, SampleTransport)

            def break_commit(db: sqlite3.Connection, *_: object) -> None:
                db.execute("PRAGMA defer_foreign_keys = ON")  # looked at when it is committed
                db.execute("INSERT INTO work VALUES (999, 999, 0, '', 0)")

            def break_before(*_: object) -> None:
                raise sqlite3.OperationalError("database or disk is full")

            for break_it, kind in ((break_commit, Unknown), (break_before, Rejected)):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(queues, "store", break_it)
                    (result,) = await transport.publish([outgoing("a")])
                assert isinstance(result, kind)
                assert str(file) in str(result.error)
            assert (await transport.publish([outgoing("a")])) == [Receipt("a", "1")]

    run(law)


# ---- the file


def test_what_every_group_has_settled_goes_after_the_window_and_nothing_else(file: Path) -> None:
    async def law() -> None:
        dead = Subject("ns", Kind.DEAD, "Note", "g")
        nobody = Subject("ns", Kind.LOG, "Other")
        async with opened(file, dedupe_window=10) as transport:
            assert isinstance(transport, SampleTransport)
            subjects = (LOG, LOG, dead, nobody)
            out = [outgoing(str(number), subject) for number, subject in enumerate(subjects)]
            await transport.publish(out)
            subscription = await transport.subscribe(GROUP)
            first, _ = await subscription.receive(10, 5)
            await subscription.settle([Settle(first, Ack())])
            for seconds, left in ((5, 4), (11, 3)):
                now = transport.now() + seconds
                await transport.database.write(queues.keep_house, "me", now, now)
                assert count(file, "entry") == left
            await transport.remove("ns")
            assert [count(file, table) for table in ("entry", "work", "route")] == [0, 0, 0]

    run(law)


def test_a_group_that_may_not_be_made_is_named(file: Path) -> None:
    async def law() -> None:
        bus = bus_on(file, {"create": False})
        keep(bus, Stored)
        with pytest.raises(ConfigurationError, match="no group 'check' of Stored"):
            await enter(bus)

    run(law)


def test_a_listener_that_was_given_up_listens_again(file: Path) -> None:
    async def law() -> None:
        bus = bus_on(file)
        seen = keep(bus, Noticed)
        async with bus:
            transport = bus.transport
            assert isinstance(transport, SampleTransport)
            later = transport.now() + 100
            await transport.database.write(queues.keep_house, "another bus", later, later)
            await eventually(lambda: count(file, "queue WHERE bus <> ''"))
            await bus.publish(Noticed(1))
            await eventually(lambda: seen)

    run(law)


def test_many_may_make_the_file_at_once(file: Path) -> None:
    async def law() -> None:
        for number in range(10):
            each = file.with_name(f"{number}.db")
            async with asyncio.TaskGroup() as group:
                for _ in range(6):
                    group.create_task(open_and_close(each))

    async def open_and_close(each: Path) -> None:
        async with opened(each) as transport:
            assert (await transport.health()).ok

    run(law)
