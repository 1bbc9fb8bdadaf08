"""Nodes without a broker: what one is, what a watch makes of snapshots, and keeping a lease."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catga import (
    AuthenticationError,
    ChangeKind,
    ConfigurationError,
    ConnectionLost,
    LeaseLost,
    Node,
    NodeTaken,
)
from catga.engine.discovery import Discovery, NodePace
from catga.engine.membership import differences
from catga.errors import DecodeError
from catga.settings import Settings
from catga.spi import NodeRecord, NodeStore, Sighting, Snapshot, TransportEvent
from catga.testing import ManualClock, settle_loop
from core.engine_kit import Probe
from core.engine_kit import run as run_bus

TTL = 15.0
THEN = datetime(2026, 1, 1, tzinfo=UTC)


# ---- what a node is


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": ""},
        {"id": "a b"},
        {"id": "x" * 65},
        {"id": "a.b"},
        {"service": "a>"},
        {"address": "two\nlines"},
        {"address": "\x1b[31mred"},
        {"address": "x" * 513},
        {"address": 80},
        {"load": -1},
        {"load": math.nan},
        {"load": math.inf},
        {"load": True},
        {"load": "heavy"},
        {"metadata": {"a b": "c"}},
        {"metadata": {"": "c"}},
        {"metadata": {"a": 1}},
        {"metadata": {"a": "\x07"}},
        {"metadata": {f"k{number}": "" for number in range(33)}},
        {"metadata": "text"},
        {"started": datetime(2026, 1, 1)},  # noqa: DTZ001 - naive, to be refused
        {"last_seen": None},
    ],
)
def test_what_cannot_be_shown_or_stored_everywhere_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="node"):
        Node(**wrong)


def test_nobody_changes_a_node_that_was_made() -> None:
    metadata = {"zone": "b"}
    node = Node(metadata=metadata)
    metadata["zone"] = "c"
    assert node.metadata == {"zone": "b"}
    with pytest.raises(TypeError):
        node.metadata["zone"] = "c"  # type: ignore[index]
    assert node == attrs.evolve(node)
    assert hash(node) == hash(attrs.evolve(node))
    assert Node().id != Node().id


tokens = st.text("abcXYZ019_-", min_size=1, max_size=64)
words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=20)


@given(
    name=tokens,
    address=words,
    load=st.floats(0, 1e300),
    metadata=st.dictionaries(tokens, words, max_size=5),
    ttl=st.floats(0.001, 1e6),
    started=st.datetimes(timezones=st.just(UTC)),
)
def test_a_record_reads_back_as_it_was_written(
    name: str, address: str, load: float, metadata: dict[str, str], ttl: float, started: datetime
) -> None:
    node = Node(id=name, service="s", address=address, load=load, metadata=metadata)
    record = NodeRecord(attrs.evolve(node, started=started, last_seen=THEN), "owner", ttl)
    assert NodeRecord.from_bytes(record.to_bytes(), THEN) == record


def fields(**changed: Any) -> bytes:
    fine = json.loads(NodeRecord(Node(id="one", service="s", started=THEN), "o", TTL).to_bytes())
    return json.dumps({**fine, **changed}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'"' + b"x" * 200_000 + b'"',
        fields(id="a b"),
        fields(metadata=[]),
        fields(load=None),
        fields(started="soon"),
        fields(started="2026-01-01T00:00:00"),
        fields(started=5),
        fields(owner=""),
        fields(owner=5),
        fields(ttl="long"),
        fields(ttl=math.nan),
        fields(ttl=-1),
        fields(ttl=10**400),
        fields(load=10**400),
        fields(address="\x1b[2J"),
    ],
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match="not the record of a node"):
        NodeRecord.from_bytes(data, THEN)


def test_fields_of_a_later_version_are_passed_over() -> None:
    assert NodeRecord.from_bytes(fields(colour="red"), THEN).node.id == "one"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_refused(data: bytes) -> None:
    with suppress(DecodeError):
        NodeRecord.from_bytes(data, THEN)


# ---- what changes between two snapshots

owners = st.sampled_from("pq")
sightings = st.builds(lambda owner, load: (owner, load), owners, st.sampled_from([0.0, 1.0]))
views = st.dictionaries(st.sampled_from("abcd"), sightings, max_size=4)


def snapshot(view: dict[str, tuple[str, float]], left: frozenset[str] = frozenset()) -> Snapshot:
    present = {
        name: Sighting(Node(id=name, service="s", load=load), owner, TTL)
        for name, (owner, load) in view.items()
    }
    return Snapshot(present, left - present.keys())


@given(before=views, after=views, left=st.frozensets(st.sampled_from("abcd")))
def test_the_changes_lead_from_what_was_seen_to_what_is_there(
    before: dict[str, tuple[str, float]],
    after: dict[str, tuple[str, float]],
    left: frozenset[str],
) -> None:
    now = snapshot(after, left)
    changes = differences(snapshot(before).present, now)
    told = {name: load for name, (_, load) in before.items()}
    for change in changes:
        name, there = change.node.id, change.kind in {ChangeKind.JOINED, ChangeKind.UPDATED}
        assert (name in told) is (change.kind is not ChangeKind.JOINED)
        if there:
            told[name] = change.node.load
        else:
            assert change.node.load == told.pop(name)
            assert (change.kind is ChangeKind.LEFT) is (name in now.left)
    assert told == {name: load for name, (_, load) in after.items()}
    assert differences(now.present, now) == []
    assert max([0, *(sum(c.node.id == name for c in changes) for name in "abcd")]) <= 2


# ---- a watch, and a lease, over a store that does as it is told


class Told(NodeStore):
    """Holds what a test puts in; never hints by itself."""

    def __init__(self) -> None:
        self.view: dict[str, Sighting] = {}
        self.failure: Exception | None = None
        self.looks = 0
        self.accepts = True
        self.log: list[str] = []
        self.wake: Callable[[], None] = lambda: None
        self.listening = False

    def put(self, name: str, left: float = TTL, owner: str = "p") -> None:
        self.view[name] = Sighting(Node(id=name, service="s"), owner, left)

    async def _write(self, what: str) -> bool:
        self.log.append(what)
        if self.failure is not None:
            raise self.failure
        return self.accepts

    async def register(self, record: NodeRecord) -> bool:
        return await self._write("register")

    async def renew(self, record: NodeRecord) -> bool:
        return await self._write("renew")

    async def deregister(self, record: NodeRecord) -> bool:
        return await self._write("deregister")

    async def snapshot(self) -> Snapshot:
        self.looks += 1
        if self.failure is not None:
            raise self.failure
        return Snapshot(dict(self.view))

    @asynccontextmanager
    async def hints(self, wake: Callable[[], None]) -> AsyncIterator[None]:
        self.wake, self.listening = wake, True
        yield
        self.listening = False


@attrs.define
class Desk:
    clock: ManualClock
    store: Told
    discovery: Discovery
    events: list[TransportEvent]

    async def read(self, watch: Any, seconds: float) -> list[tuple[str, str]]:
        """Read for so many seconds of the manual clock."""
        reading = asyncio.create_task(watch.receive(seconds))
        await self.clock.advance(seconds)
        await settle_loop()
        return [(change.kind.value, change.node.id) for change in await reading]


def run(law: Callable[[Desk], Awaitable[None]]) -> None:
    async def bounded() -> None:
        clock, store, events = ManualClock(), Told(), list[TransportEvent]()
        pace = NodePace(TTL, TTL / 3)
        discovery = Discovery(store, clock, pace, "me", emit=events.append, random=lambda: 0.5)
        async with asyncio.timeout(10):
            await law(Desk(clock, store, discovery, events))

    asyncio.run(bounded())


def test_without_a_single_hint_everything_is_still_seen() -> None:
    async def law(desk: Desk) -> None:
        async with desk.discovery.watch() as watch:
            desk.store.put("one")
            assert await desk.read(watch, TTL * 0.4) == []
            assert await desk.read(watch, TTL * 0.2) == [("joined", "one")]
            desk.store.view.clear()
            assert await desk.read(watch, TTL * 0.6) == [("expired", "one")]

    run(law)


def test_the_end_of_a_lease_is_looked_at_when_it_comes() -> None:
    async def law(desk: Desk) -> None:
        desk.store.put("dies", left=3.0)
        desk.store.put("lives")
        async with desk.discovery.watch() as watch:
            assert len(await desk.read(watch, 0)) == 2
            looks = desk.store.looks
            assert await desk.read(watch, 2.9) == []
            assert desk.store.looks == looks
            del desk.store.view["dies"]
            assert await desk.read(watch, 0.3) == [("expired", "dies")]

    run(law)


def test_while_nothing_happens_it_looks_twice_in_a_lease() -> None:
    async def law(desk: Desk) -> None:
        desk.store.put("one")
        async with desk.discovery.watch() as watch:
            await desk.read(watch, 0)
            looks = desk.store.looks
            assert await desk.read(watch, TTL * 100) == []
            assert 180 <= desk.store.looks - looks <= 220

    run(law)


def test_hints_that_come_in_a_row_are_answered_together() -> None:
    async def law(desk: Desk) -> None:
        async with desk.discovery.watch() as watch:
            await desk.read(watch, 1.0)
            looks = desk.store.looks
            for number in range(1000):
                desk.store.put(f"n-{number}")
                desk.store.wake()
            told = await desk.read(watch, 1.0)
            assert len(told) == 1000
            assert desk.store.looks == looks + 1

    run(law)


def test_who_does_not_read_costs_nothing() -> None:
    async def law(desk: Desk) -> None:
        async with desk.discovery.watch() as watch:
            looks = desk.store.looks
            for _ in range(100):
                desk.store.wake()
                await desk.clock.advance(TTL)
            assert desk.store.looks == looks
            assert await desk.read(watch, 1.0) == []
        assert not desk.store.listening

    run(law)


SAT_OUT = pytest.mark.parametrize(
    ("failure", "told"),
    [
        (ConnectionLost("nobody at nats://h:1"), "nobody at nats://h:1"),
        (RuntimeError("a bug in a plugin"), "RuntimeError: a bug in a plugin"),
    ],
)


@SAT_OUT
def test_a_broker_that_is_not_there_takes_nobody_away(failure: Exception, told: str) -> None:
    async def law(desk: Desk) -> None:
        desk.store.put("one")
        async with desk.discovery.watch() as watch:
            await desk.read(watch, 0)
            desk.store.failure = failure
            assert await desk.read(watch, TTL * 3) == []
            assert watch.trouble == told
            assert [node.id for node in watch.nodes] == ["one"]
            desk.store.failure = None
            assert await desk.read(watch, TTL) == []
            assert watch.trouble == ""
            desk.store.failure = AuthenticationError("no permission")
            with pytest.raises(AuthenticationError):
                await desk.read(watch, TTL)

    run(law)


def test_a_watch_that_cannot_begin_says_so_and_listens_no_more() -> None:
    async def law(desk: Desk) -> None:
        desk.store.failure = ConnectionLost("nobody")
        with pytest.raises(ConnectionLost):
            async with desk.discovery.watch():
                pass
        assert not desk.store.listening

    run(law)


def test_a_reader_that_is_cancelled_takes_nothing_with_it() -> None:
    async def law(desk: Desk) -> None:
        async with desk.discovery.watch() as watch:
            reading = asyncio.create_task(watch.receive(TTL))
            await settle_loop()
            desk.store.put("one")
            desk.store.wake()
            reading.cancel()
            await asyncio.wait([reading])
            assert await desk.read(watch, 1.0) == [("joined", "one")]

    run(law)


@SAT_OUT
def test_a_lease_is_kept_over_failures_and_told_once(failure: Exception, told: str) -> None:
    async def law(desk: Desk) -> None:
        await desk.discovery.register(Node(id="one", service="s"))
        keeping = asyncio.create_task(desk.discovery.keep())
        await desk.clock.advance(TTL * 10)
        assert desk.store.log.count("renew") == pytest.approx(30, abs=2)
        desk.store.failure = failure
        await desk.clock.advance(TTL / 2)
        assert [event.detail for event in desk.events] == [f"node: {told}"]
        assert desk.discovery.lease_until > desk.clock.monotonic()
        await desk.clock.advance(TTL)
        assert desk.discovery.lease_until < desk.clock.monotonic()
        desk.store.failure = None
        desk.store.log.clear()
        await desk.clock.advance(TTL / 3)
        assert desk.store.log[0] == "register", "the lease has ended: the id is taken again"
        assert desk.discovery.lease_until > desk.clock.monotonic()
        await desk.discovery.deregister()
        await desk.clock.advance(TTL)
        assert keeping.done()
        assert desk.store.log[-1] == "deregister"

    run(law)


def test_a_lease_that_has_ended_by_our_own_clock_is_not_renewed() -> None:
    async def law(desk: Desk) -> None:
        await desk.discovery.register(Node(id="one", service="s"))
        assert desk.discovery.lease_until == desk.clock.monotonic() + TTL
        await desk.clock.advance(TTL)
        with pytest.raises(LeaseLost, match="one"):
            await desk.discovery.heartbeat()
        assert desk.store.log == ["register"], "whatever the broker would say"

    run(law)


def test_an_id_that_is_taken_is_refused_and_so_is_a_second_one() -> None:
    async def law(desk: Desk) -> None:
        desk.store.accepts = False
        desk.store.put("one", owner="q")
        with pytest.raises(NodeTaken, match="one is held by s"):
            await desk.discovery.register(Node(id="one", service="s"))
        assert desk.discovery.node is None
        with pytest.raises(ConfigurationError, match="register first"):
            await desk.discovery.heartbeat()
        with pytest.raises(ConfigurationError, match="needs a service"):
            await desk.discovery.register(Node(id="two"))
        desk.store.accepts = True
        await desk.discovery.register(Node(id="two", service="s"))
        with pytest.raises(ConfigurationError, match="two already"):
            await desk.discovery.register(Node(id="three", service="s"))

    run(law)


def test_who_registers_again_is_as_old_as_it_was() -> None:
    async def law(desk: Desk) -> None:
        await desk.discovery.register(Node(id="one", service="s"))
        before = desk.discovery.node
        assert before is not None
        assert before.started == desk.clock.now()
        await desk.clock.advance(TTL)
        await desk.discovery.register(before)
        assert desk.discovery.node == before

    run(law)


def test_an_id_that_nobody_gives_up_is_not_waited_for_without_end() -> None:
    async def law(desk: Desk) -> None:
        desk.store.accepts = False  # though nobody is seen to have it
        taking = asyncio.create_task(desk.discovery.take_over(Node(id="one", service="s")))
        await desk.clock.advance(TTL * 1.5)
        with pytest.raises(NodeTaken):
            await taking

    run(law)


# ---- the bus


@pytest.mark.parametrize("wrong", ["one", 1, None, Node])
def test_what_describes_no_node_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="node"):
        Probe().bus(node=wrong)


@SAT_OUT
def test_a_bus_that_cannot_say_good_bye_drains_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failure: Exception,
    told: str,
) -> None:
    async def law(probe: Probe) -> None:
        bus, tries = probe.bus(node=True), list[str]()
        async with bus:

            async def fail(record: NodeRecord) -> bool:
                tries.append(record.node.id)
                raise failure

            monkeypatch.setattr(bus.discovery._store, "deregister", fail)
            draining = asyncio.create_task(bus.drain())
            await probe.pass_time(2.5)
            assert draining.done()
            assert draining.result().abandoned == 0
            assert f"until its lease ends: {told}" in caplog.text
            assert len(tries) > 5 or not isinstance(failure, ConnectionLost), "it may come back"

    run_bus(law)


def test_the_pace_of_nodes_fits_together() -> None:
    seconds = Settings().node_ttl.total_seconds()
    assert (seconds, Settings().node_heartbeat) == (15.0, None)
    with pytest.raises(ValueError, match="half of 'node_ttl'"):
        Settings(node_heartbeat=Settings().node_ttl)
