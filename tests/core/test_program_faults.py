"""Faults of programs: noted when and where they happen, and over when they are over."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import attrs
import pytest

from catga.testing.faults import FaultProxy
from catga.testing.harness import Harness
from catga.testing.programs import (
    Cut,
    CutAtCompletion,
    CutAtWrite,
    Delay,
    HalfClose,
    Pause,
    Program,
    Publish,
    Restart,
)
from catga.testing.programs.coverage import Coverage
from catga.testing.programs.faults import Faults, Way
from catga.testing.programs.history import PUBLISHER, Copy, Disturbance, History, Published, Run
from catga.testing.programs.laws import broken
from catga.testing.programs.steps import Fault
from catga.testing.stage import Stage
from catga.testing.tap import Point, Tap


@attrs.define
class Scene:
    """A publisher and two members of group `a`, each with a connection through its proxy."""

    faults: Faults
    history: History
    ways: list[Way]
    writers: list[asyncio.StreamWriter]

    async def connect(self, proxy: FaultProxy) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b".")
        await reader.readexactly(1)
        self.writers.append(writer)

    async def befall(self, step: Fault) -> None:
        await self.faults.befall(step, self.ways)
        await asyncio.sleep(0)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(100):
            writer.write(data)
    writer.close()


async def nothing(*_: float) -> None:
    await asyncio.sleep(0)


def play(act: Callable[[Scene], Awaitable[None]]) -> History:
    history = History(("a",), attempts=3, backoff=(1.0, 2.0))

    async def bounded() -> None:
        harness = Harness(url="inmemory://", time_scale=0.01, restart=nothing, pause=nothing)
        stage = Stage(harness)
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(10), server:
            made = [(await stage.proxy())[0] for _ in range(3)]
            for proxy in made:
                proxy.target = port
            numbered = zip(("publisher", "a", "a"), made, (PUBLISHER, 0, 1), strict=True)
            ways = [Way(who, proxy, Tap(), member) for who, proxy, member in numbered]
            scene = Scene(Faults(stage, history), history, ways, [])
            for way in ways:
                await scene.connect(way.proxy)
            await act(scene)
            for writer in scene.writers:
                writer.close()
            await stage.close()

    asyncio.run(bounded())
    return history


async def until(condition: Callable[[], bool]) -> None:
    while True:
        if condition():
            return
        await asyncio.sleep(0)


def over(history: History) -> bool:
    return all(each.end < math.inf for each in history.disturbances)


@pytest.mark.parametrize(
    ("step", "hit"),
    [
        (Cut(), [PUBLISHER, 0, 1]),
        (HalfClose(), [PUBLISHER]),
        (HalfClose("a", "down"), [0, 1]),
        (Restart(), [None]),
    ],
)
def test_a_fault_is_over_a_lease_after_the_connections_are_back(
    step: Fault, hit: list[int | None]
) -> None:
    async def act(scene: Scene) -> None:
        await scene.befall(step)
        assert [each.member for each in scene.history.disturbances] == hit
        assert not over(scene.history)
        for way in scene.ways:
            await scene.connect(way.proxy)
        await until(lambda: over(scene.history))

    play(act)


def test_a_delay_is_over_once_it_is_healed_and_a_pause_once_it_has_passed() -> None:
    async def act(scene: Scene) -> None:
        await scene.befall(Delay("a"))
        await scene.befall(Pause(0.1))
        assert [each.member for each in scene.history.disturbances] == [0, 1, None]
        await until(lambda: scene.history.disturbances[2].end < math.inf)
        assert not over(scene.history)
        await scene.faults.end(scene.ways)
        assert over(scene.history)

    play(act)


def test_what_did_not_happen_is_no_fault() -> None:
    async def act(scene: Scene) -> None:
        for step in (CutAtWrite("b"), CutAtWrite("a", 9), Delay("b"), HalfClose("b")):
            await scene.befall(step)
        for way in scene.ways:
            way.proxy.cut()
        await until(lambda: not any(way.proxy.links for way in scene.ways))
        await scene.befall(Cut())
        await scene.faults.end(scene.ways)

    assert play(act).disturbances == []


def test_only_what_happened_was_shown() -> None:
    program = Program((CutAtWrite("b"), Cut(), Publish(2)))
    coverage = Coverage()
    coverage.add(program, History(("a",)))
    assert (coverage.counts["CutAtWrite"], coverage.counts["Cut"]) == (0, 0)
    assert coverage.counts["Publish"] == 1
    coverage.add(program, History(("a",), disturbances=[Disturbance("CutAtWrite", 1.0)]))
    assert (coverage.counts["CutAtWrite"], coverage.counts["Cut"]) == (1, 0)


def test_a_trap_is_a_fault_of_the_member_at_which_it_springs() -> None:
    async def act(scene: Scene) -> None:
        await scene.befall(CutAtWrite("a", 1))
        scene.writers[2].write(b".")
        await until(lambda: bool(scene.history.disturbances))

    assert [(each.kind, each.member) for each in play(act).disturbances] == [("CutAtWrite", 1)]


@pytest.mark.parametrize(
    ("before", "kind"), [(Point.HANDLED, "CutAtCompletion"), (Point.RECORDED, "CutAtWrite")]
)
def test_a_completion_is_cut_only_while_it_is_on_its_way(before: Point, kind: str) -> None:
    async def act(scene: Scene) -> None:
        await scene.befall(CutAtCompletion("a"))
        member = scene.ways[1]
        await scene.connect(member.proxy)
        assert scene.history.disturbances == [], "any other write passes"
        for point in (Point.LOOKED_UP, Point.HANDLED, Point.RECORDED):
            await member.tap.reach(point)
            if point is before:
                scene.writers[1].write(b".")
                await until(lambda: bool(scene.history.disturbances))

    assert [(each.kind, each.member) for each in play(act).disturbances] == [(kind, 0)]


def run(member: int, start: float, **more: Any) -> Run:
    again = Run("a", "m0", 2, member, 1, "ok", start, start + 5.0, effect=True, word="ack")
    return attrs.evolve(again, settled=start + 5.1, **more)


def test_long_after_a_fault_the_laws_are_exact() -> None:
    """Two effects side by side, and a failure that did not wait."""
    history = History(("a",), backoff=(1.0, 2.0))
    history.published = [Published("m0", 2, 1000.0, frozenset("a"), "accepted")]
    failed = run(0, 1000.0, deed="raise", effect=False, word="nack", attempt=1)
    history.runs = [failed, run(0, 1005.01, attempt=2), run(1, 1006.0, attempt=2)]
    history.copies = [Copy("m0", 2)]
    exact = {each.law for each in broken(history)}
    assert exact >= {"exactly_once", "one_at_a_time", "a_failure_waits", "the_books_balance"}

    async def act(scene: Scene) -> None:
        await scene.befall(Cut())
        for way in scene.ways:
            await scene.connect(way.proxy)
        await until(lambda: over(scene.history))

    history.disturbances = play(act).disturbances
    moment = max(each.end for each in history.disturbances)
    for each in history.disturbances:  # as if it had begun with the clock
        each.start, each.end = each.start - moment, each.end - moment
    assert {each.law for each in broken(history)} == exact


def test_what_befell_the_publisher_excuses_no_member() -> None:
    history = History(("a",))
    history.published = [Published("m0", 2, 0.0, frozenset("a"), "accepted")]
    history.runs = [run(0, 1.0), run(1, 7.0, attempt=2)]
    history.copies = [Copy("m0", 2)]
    history.disturbances = [Disturbance("Cut", 0.0, member=PUBLISHER)]
    assert {"exactly_once", "done_is_done"} <= {each.law for each in broken(history)}


def test_what_was_told_as_done_is_done_also_under_a_fault() -> None:
    history = History(("a",), flight=0.2)
    history.disturbances = [Disturbance("CutAtCompletion", 6.05, 9.0, 0)]
    for again, laws in ((6.2, set()), (8.0, {"done_is_done"})):
        history.runs = [run(0, 1.0), run(1, again, attempt=2)]
        found = {each.law for each in broken(history)}
        assert found & {"done_is_done", "exactly_once", "one_at_a_time"} == laws


def test_attempts_go_back_only_for_whom_a_slow_line_brought_one_late() -> None:
    history = History(("a",), attempts=4)
    history.published = [Published("m0", 2, 0.0, frozenset("a"), "accepted")]
    history.copies = [Copy("m0", 2)]
    later = run(0, 1.0, attempt=4, deed="reject", effect=False, word="dead-letter")
    history.runs = [later, run(1, 7.0, attempt=3, word="lost")]
    for member, end, told in ((1, 9.0, False), (1, 6.0, True), (2, 9.0, True)):
        history.disturbances = [Disturbance("Delay", 0.5, end, member)]
        assert ("attempts_count_up" in {each.law for each in broken(history)}) is told
    history.disturbances = []
    assert "attempts_count_up" in {each.law for each in broken(history)}


def test_a_replay_goes_on_beside_what_a_broker_forgot_to_be_settled() -> None:
    """Two counts that go up cannot explain three that go back."""
    history = History(("a",), attempts=4)
    history.published = [Published("m0", 1, 0.0, frozenset("a"), "accepted")]
    history.copies = [Copy("m0", 1)]
    history.disturbances = [Disturbance("Restart", 0.5, 60.0)]
    for attempts, replays, told in (
        ([1, 1, 2, 1, 3], 0, True),
        ([1, 1, 2, 1, 3], 1, False),
        ([3, 2, 1], 1, True),
        ([2, 3, 1, 2, 3], 1, False),
    ):
        history.runs = [run(0, 3.0 * at, attempt=each) for at, each in enumerate(attempts)]
        for each in history.runs:
            each.qos = 1
        history.perhaps_replayed["a", "m0"] = replays
        assert ("attempts_count_up" in {each.law for each in broken(history)}) is told
