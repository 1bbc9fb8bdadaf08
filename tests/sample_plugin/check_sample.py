"""What a third party may rely on; run by `nox -s sample_plugin`, where the wheel is installed."""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from catga import Bus, Context, Event, QualityOfService, Request
from catga.errors import (
    CapabilityError,
    ConfigurationError,
    ConnectionLost,
    NoResponders,
    PayloadTooLarge,
)
from catga.ground.clock import SystemClock
from catga.plugins import installed_catalog
from catga.settings import parse_url
from catga.spi import (
    Ack,
    Capability,
    Completion,
    Delivery,
    Done,
    EventKind,
    Kind,
    Lost,
    Mode,
    Nack,
    Outgoing,
    Receipt,
    Rejected,
    Runtime,
    Settle,
    Source,
    Subject,
    Subscription,
    Topology,
    Transport,
    TransportEvent,
    Unknown,
)

QUICK = {"backoff_base": 0.01, "backoff_cap": 0.05}
LOG = Subject("ns", Kind.LOG, "Note")
GROUP = Source("ns", "Note", "g", durable=True, lease=30)


@attrs.frozen
class Noticed(Event):
    qos = QualityOfService.AT_MOST_ONCE
    number: int


@attrs.frozen
class Stored(Event):
    number: int


@attrs.frozen
class Paid(Event):
    qos = QualityOfService.EXACTLY_ONCE
    number: int


@attrs.frozen
class Double(Request[int]):
    number: int


# ---- what the laws are tried with


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "messages.db"


def bus_on(file: Path, settings: dict[str, object] | None = None, **more: Any) -> Bus:
    return Bus(
        f"sample://{file}", **{"service": "check", "settings": QUICK | (settings or {})} | more
    )


def keep(bus: Bus, cls: type, **options: Any) -> list[tuple[int, int]]:
    """Handle `cls`, keeping number and attempt of each in the list that is returned."""
    seen: list[tuple[int, int]] = []

    @bus.handle(cls, **options)
    async def handle(event: Any, context: Context) -> None:
        seen.append((event.number, context.attempt))

    return seen


def run(law: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await law()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"

    asyncio.run(bounded())


async def enter(bus: Bus) -> None:
    async with bus:
        pass


async def eventually(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - any condition, of any process
            await asyncio.sleep(0.005)


def count(file: Path, table: str) -> int:
    """Look with other eyes."""
    with sqlite3.connect(file) as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@asynccontextmanager
async def opened(
    file: Path, events: list[TransportEvent] | None = None, **topology: Any
) -> AsyncIterator[Transport]:
    """The transport itself, prepared for one group."""
    tasks: list[asyncio.Task[Any]] = []
    address, _ = parse_url(f"sample://{file}")
    descriptor = installed_catalog().transport_for("sample")
    transport = descriptor.factory(address, descriptor.settings(live_buffer=3), frozenset())

    def spawn(work: Coroutine[Any, Any, Any], name: str) -> None:
        tasks.append(asyncio.create_task(work, name=name))

    heard = [] if events is None else events
    await transport.open(Runtime(SystemClock(), spawn, heard.append, "me", "check", 5))
    given: dict[str, Any] = {
        "dedupe_window": 600.0,
        "completion_ttl": 600.0,
        "sources": (GROUP,),
    } | topology
    qos = QualityOfService.EXACTLY_ONCE
    try:
        await transport.prepare(Topology("ns", ("Note",), qos=qos, **given), Mode.CREATE)
        yield transport
    finally:
        await transport.close()
        await transport.close()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def outgoing(message_id: str, subject: Subject = LOG) -> Outgoing:
    return Outgoing(subject, b"body", message_id, QualityOfService.AT_LEAST_ONCE)


async def one(subscription: Subscription) -> Delivery:
    (delivery,) = await subscription.receive(10, 5)
    return delivery


# ---- the plugin


def test_the_wheel_is_installed_and_found_by_its_entry_point() -> None:
    distribution = importlib.metadata.distribution("catga-sqlite-sample")
    assert "site-packages" in str(distribution.locate_file(""))
    catalog = installed_catalog()
    assert catalog.problems == ()
    assert catalog.transport_for("sample").name == "sample"


def test_its_module_imports_nothing_heavy_and_the_program_lists_it() -> None:
    program = "import catga_sample.plugin, sys; sys.exit('sqlite3' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
    command = [sys.executable, "-m", "catga", "plugins", "--json"]
    shown = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    (plugin,) = shown["plugins"]
    named = (plugin["name"], plugin["distribution"], plugin["version"])
    assert named == ("sample", "catga-sqlite-sample", "1.0.0")
    assert set(plugin["transports"][0]["capabilities"]) == set(Capability) - {"handled"}


def test_other_schemes_say_what_to_install() -> None:
    with pytest.raises(ConfigurationError, match=r"known schemes: sample; .*catga-core\[nats\]"):
        installed_catalog().transport_for("nats")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sample:///f.db?fsinc=true", "did you mean 'fsync'"),
        ("sample:///f.db?live_buffer=0", ">="),
        ("sample:///f.db?poll_interval=0s", ">"),
        ("sample://", "sample:///path/to/file.db"),
        ("sample://file.db", "sample:///path/to/file.db"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        run(lambda: enter(Bus(url, service="check")))


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("no database at all" * 100)
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("CREATE TABLE mine (id)")
    for name in ("missing/file.db", "folder", "text", "other.db"):
        with pytest.raises(ConnectionLost, match=name):
            run(functools.partial(enter, bus_on(tmp_path / name)))


def test_what_it_does_not_declare_is_refused(file: Path) -> None:
    async def law() -> None:
        async with opened(file) as transport:
            assert Capability.HANDLED not in transport.capabilities
            with pytest.raises(CapabilityError):
                await transport.wait_handled(LOG, "1")

    run(law)


# ---- QoS 0


@pytest.mark.parametrize("buses", [1, 2])
def test_at_most_once_reaches_each_listener_and_one_member_of_each_group(
    file: Path, buses: int
) -> None:
    async def law() -> None:
        members = [bus_on(file, group="shared") for _ in range(2)]
        listener = bus_on(file)
        seen = [keep(bus, Noticed) for bus in members]
        heard = keep(listener, Noticed, broadcast=True)
        async with members[0], members[1], listener:
            publisher = (listener, members[0])[buses - 1]
            for number in range(40):
                await publisher.publish(Noticed(number))
            await eventually(lambda: len(heard) == len(seen[0]) + len(seen[1]) == 40)
        assert [number for number, _ in heard] == list(range(40))
        assert all(seen), "both took part"
        assert count(file, "work") == 0

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


def test_requests_are_answered_and_nobody_is_told_at_once(file: Path) -> None:
    async def law() -> None:
        asking, answering = bus_on(file, service="asking"), bus_on(file, service="answering")

        @answering.handle(Double)
        async def double(request: Double) -> int:
            return request.number * 2

        async with asking:
            zero = QualityOfService.AT_MOST_ONCE
            with pytest.raises(NoResponders):
                await asking.request(Double(1), to="answering", qos=zero)
            async with answering:
                assert await asking.request(Double(2), to="answering") == 4
                assert await asking.request(Double(3), to="answering", qos=zero) == 6

    run(law)


# ---- QoS 1


def test_what_was_published_before_the_first_start_is_delivered_to_every_group(file: Path) -> None:
    async def law() -> None:
        async with bus_on(file) as publisher:
            await publisher.publish(Stored(1))
            await publisher.send(Stored(2), to="one")
        buses = [bus_on(file, group="one"), bus_on(file, group="two"), bus_on(file, group="new")]
        starts = ["beginning", "beginning", "new"]
        one, two, new = (keep(bus, Stored, start=s) for bus, s in zip(buses, starts, strict=True))
        async with buses[0], buses[1], buses[2]:
            await buses[0].publish(Stored(3))
            await eventually(lambda: len(one) == 3 and len(two) == 2 and len(new) == 1)
        assert sorted(one) == [(1, 1), (2, 1), (3, 1)]
        assert sorted(two) == [(1, 1), (3, 1)]
        assert new == [(3, 1)]
        assert count(file, "work") == 0, "all is settled"

    run(law)


def test_a_failing_handler_is_tried_again_then_parked(file: Path) -> None:
    async def law() -> None:
        bus = bus_on(file, {"attempts": 3})
        attempts: list[int] = []

        @bus.handle(Stored)
        async def fail(event: Stored, context: Context) -> None:
            attempts.append(context.attempt)
            raise LookupError

        async with bus:
            await bus.publish(Stored(1))
            await eventually(lambda: bus.counts()["check/Stored"].get("dead-letter"))
        assert attempts == [1, 2, 3]
        with sqlite3.connect(file) as db:
            texts = [text for (text,) in db.execute("SELECT subject FROM entry ORDER BY sequence")]
        assert texts == ["catga.log.Stored.0", "catga.dead.check.Stored"]
        assert count(file, "work") == 0

    run(law)


def test_drain_gives_back_what_has_not_begun(file: Path) -> None:
    async def law() -> None:
        first, second = bus_on(file), bus_on(file)
        begun, goes_on = asyncio.Event(), asyncio.Event()

        @first.handle(Stored, concurrency=1)
        async def slow(event: Stored) -> None:
            begun.set()
            await goes_on.wait()

        async with first:
            await first.publish_many(Stored(number) for number in range(5))
            await begun.wait()
            draining = asyncio.create_task(first.drain())
            await eventually(lambda: count(file, "work WHERE owner = ''") == 4)
            goes_on.set()
            drained = await draining
        assert (drained.handled, drained.returned, drained.abandoned) == (1, 4, 0)
        seen = keep(second, Stored)
        async with second:
            await eventually(lambda: len(seen) == 4)

    run(law)


def test_broadcast_listeners_each_see_what_is_new(file: Path) -> None:
    async def law() -> None:
        bus = bus_on(file)
        one, two = keep(bus, Stored, broadcast=True), keep(bus, Stored, broadcast=True)
        async with bus_on(file) as publisher:
            await publisher.publish(Stored(1))
            async with bus:
                await publisher.publish(Stored(2))
                await eventually(lambda: one == two == [(2, 1)])

    run(law)


WORKER = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
import check_sample as check

async def main():
    bus = check.bus_on(sys.argv[1], {"lease": 0.5})

    @bus.handle(check.Stored)
    async def hang(event):
        print("begun", flush=True)
        await asyncio.Event().wait()

    async with bus:
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def worker(file: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WORKER, str(file), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_what_a_killed_process_had_in_hand_is_taken_over(
    file: Path, worker: subprocess.Popen[str]
) -> None:
    async def law() -> None:
        async with bus_on(file) as publisher:
            await publisher.publish(Stored(1))
        assert worker.stdout is not None
        assert await asyncio.to_thread(worker.stdout.readline) == "begun\n"
        heir = bus_on(file, {"lease": 0.5})
        seen = keep(heir, Stored)
        async with heir:
            await asyncio.sleep(1)
            assert seen == [], "while its owner lives it stays its owner's"
            worker.send_signal(signal.SIGKILL)
            await eventually(lambda: seen)
        assert seen == [(1, 2)]

    run(law)


# ---- QoS 2


def test_one_id_is_stored_once_and_one_completion_is_not_repeated(file: Path) -> None:
    async def law() -> None:
        bus = bus_on(file)
        seen = keep(bus, Paid)
        async with bus:
            first = await bus.publish(Paid(1), message_id="a")
            again = await bus.publish(Paid(1), message_id="a")
            assert (first.duplicate, again.duplicate) == (False, True)
            assert first.sequence == again.sequence
            await bus.send(Paid(1), to="check", message_id="a")  # another copy of the same message
            await eventually(lambda: bus.counts()["check/Paid"].get("ack") == 2)
        assert seen == [(1, 1)]
        assert count(file, "record") == 1

    run(law)


def test_an_id_is_known_for_the_window_and_a_record_for_its_time(file: Path) -> None:
    async def law() -> None:
        async with opened(file, dedupe_window=0.05, completion_ttl=0.05) as transport:
            key = Completion("ns", "g", "Note", "a")
            assert transport.inbox is not None
            assert await transport.inbox.record([key]) == [Done()]
            (first,) = await transport.publish([outgoing("a")])
            await asyncio.sleep(0.06)
            (second,) = await transport.publish([outgoing("a")])
            assert isinstance(first, Receipt)
            assert isinstance(second, Receipt)
            assert not second.duplicate
            assert first.sequence != second.sequence
            assert await transport.inbox.completed([key]) == [False]

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
            assert await subscription.commit([(a, keys[0])]) == [Done()]
            assert await transport.inbox.completed(keys) == [True, False]
            assert await subscription.commit([(a, keys[0])]) == [Done()], "it is recorded"
            taken = await one(subscription)
            assert taken.sequence == b.sequence
            assert await subscription.commit([(b, keys[1])]) == [Lost()]
            assert await transport.inbox.completed(keys) == [True, False]
            assert await subscription.commit([(taken, keys[1])]) == [Done()]
        assert count(file, "work") == 0

    run(law)


def test_what_cannot_be_stored_is_said_to_each(file: Path) -> None:
    async def law() -> None:
        async with opened(file) as transport:
            large = attrs.evolve(outgoing("a"), body=bytes(transport.max_payload_bytes or 0))
            larger = attrs.evolve(outgoing("b"), body=large.body + b".")
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


def test_many_processes_may_make_the_file_at_once(file: Path) -> None:
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
