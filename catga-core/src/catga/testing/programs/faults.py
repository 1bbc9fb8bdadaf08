"""What befalls the broker of a program, and the ways to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias

import attrs

from catga.testing.faults import FaultProxy
from catga.testing.programs.history import PUBLISHER, Disturbance, History
from catga.testing.programs.steps import (
    Cut,
    CutAtCompletion,
    CutAtWrite,
    Delay,
    Fault,
    HalfClose,
    Pause,
    Restart,
)
from catga.testing.stage import NotShown, Stage
from catga.testing.tap import Point, Tap

__all__ = ["RECOVERY", "Faults", "Way"]

RECOVERY = 6.0
"""Real seconds that connections and their retries may take, with nothing to be seen meanwhile."""
_SLACK = 0.3
"""Real seconds by which clients and brokers may look late after what has ended."""
_TICK = 0.01


@attrs.frozen
class Way:
    """One way to the broker: who goes it (the publisher, or a group), what stands in it, and what
    is handed over there."""

    who: str
    proxy: FaultProxy
    tap: Tap = attrs.field(factory=Tap)
    member: int = PUBLISHER


_Broken: TypeAlias = Cut | CutAtCompletion | CutAtWrite | Delay | HalfClose


class Faults:
    """Carries out faults, and notes when whom each has kept from working: from the moment it
    really happened, until a lease after the connections are back."""

    def __init__(self, stage: Stage, history: History) -> None:
        self._stage = stage
        self._history = history
        self._pauses: list[asyncio.Task[None]] = []
        self._turn = asyncio.Lock()
        self._delays: list[Disturbance] = []

    async def befall(self, step: Fault, ways: Sequence[Way]) -> None:
        """Do what the step says; a pause goes on beside what follows."""
        if isinstance(step, Restart):
            await self._restart(ways)
        elif isinstance(step, Pause):
            self._pause(step.seconds)
        else:
            for way in ways:
                if isinstance(step, Cut) or way.who == step.who:
                    self._disturb(step, way)

    def _disturb(self, step: _Broken, way: Way) -> None:
        proxy, member = way.proxy, way.member
        if isinstance(step, CutAtWrite):
            sprung = proxy.cut_at_write(step.k, step.when)
            self._stage.tasks.spawn(self._trapped(sprung, way), "a trap")
        elif isinstance(step, CutAtCompletion):
            if self._stage.harness.inbox is not None:
                raise NotShown("completions on their way: they are recorded by another transport")
            way.tap.at = self._at_completion(step, way)
        elif isinstance(step, Delay):
            seconds = self._stage.scaled(step.seconds)
            proxy.delay(seconds, seconds)
            self._delays.append(self._begin("Delay", member))
        elif proxy.links:
            self._until_back(self._begin(type(step).__name__, member), [way])
            if isinstance(step, Cut):
                proxy.cut()
            else:
                proxy.half_close(up=step.way == "up", down=step.way == "down")

    def _at_completion(self, step: CutAtCompletion, way: Way) -> Callable[[Point], Awaitable[None]]:
        told = asyncio.Event()
        armed = False

        async def at(point: Point) -> None:
            nonlocal armed
            if point is Point.HANDLED and not armed:
                armed = True
                sprung = way.proxy.cut_at_write(1, step.when)
                self._stage.tasks.spawn(self._trapped(sprung, way, told), "a trap")
            elif point is Point.RECORDED:
                way.tap.at = None
                told.set()

        return at

    async def _trapped(
        self, sprung: asyncio.Event, way: Way, told: asyncio.Event | None = None
    ) -> None:
        await sprung.wait()
        # Sprung only after the member was told, it was another write that was cut.
        completion = told is not None and not told.is_set()
        kind = CutAtCompletion if completion else CutAtWrite
        self._until_back(self._begin(kind.__name__, way.member), [way])

    async def _restart(self, ways: Sequence[Way]) -> None:
        restart = self._stage.harness.restart
        assert restart is not None, "this harness cannot restart its broker"
        await self._pauses_end()  # or what goes on would be another process
        found = self._begin("Restart")
        self._until_back(found, [way for way in ways if way.member != PUBLISHER])
        await self._stage.wait(_all([restart()]))

    def _pause(self, seconds: float) -> None:
        pause = self._stage.harness.pause
        assert pause is not None, "this harness cannot pause its broker"
        work = self._one_after_the_other(pause(self._stage.scaled(seconds)))
        self._pauses.append(self._stage.tasks.spawn(work, "a pause of the broker"))

    async def _one_after_the_other(self, pause: Awaitable[None]) -> None:
        async with self._turn:
            found = self._begin("Pause")
            await pause
            self._over(found)

    async def _pauses_end(self) -> None:
        pauses, self._pauses = self._pauses, []
        await self._stage.wait(_all(pauses))

    async def end(self, ways: Sequence[Way]) -> None:
        """Let everything be well from now on."""
        await self._pauses_end()
        for way in ways:
            way.tap.at = None
            way.proxy.heal()
        for delay in self._delays:
            self._over(delay)

    # ---- when it began, and when it was over

    def _begin(self, kind: str, member: int | None = None) -> Disturbance:
        found = Disturbance(kind, self._stage.clock.monotonic(), member=member)
        self._history.disturbances.append(found)
        return found

    def _over(self, found: Disturbance) -> None:
        found.end = self._stage.clock.monotonic() + self._stage.lease + _SLACK

    def _until_back(self, found: Disturbance, ways: Iterable[Way]) -> None:
        before = [(way.proxy, way.proxy.counts.links) for way in ways]
        self._stage.tasks.spawn(self._back(found, before), "connections come back")

    async def _back(self, found: Disturbance, before: Sequence[tuple[FaultProxy, int]]) -> None:
        """Wait until all have a new connection; who has left, or cannot be watched, has none."""
        latest = found.start + RECOVERY
        while not before or any(proxy.counts.links == links for proxy, links in before):
            if self._stage.clock.monotonic() >= latest:
                break
            await self._stage.clock.sleep(_TICK)
        self._over(found)


async def _all(works: Iterable[Awaitable[None]]) -> None:
    await asyncio.gather(*works)
