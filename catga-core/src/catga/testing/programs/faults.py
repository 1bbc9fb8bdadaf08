"""What befalls the broker of a program, and the ways to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import TypeAlias

from catga.testing.faults import FaultProxy
from catga.testing.programs.history import Disturbance, History
from catga.testing.programs.steps import (
    Cut,
    CutAtWrite,
    Delay,
    Fault,
    HalfClose,
    Pause,
    Restart,
)
from catga.testing.stage import Stage

__all__ = ["Faults", "Proxies"]

Proxies: TypeAlias = Sequence[tuple[str, FaultProxy]]
"""What stands before the broker, with who goes through it: the publisher, or a group."""


class Faults:
    """Carries out faults, and notes when anybody may have been kept from working."""

    def __init__(self, stage: Stage, history: History) -> None:
        self._stage = stage
        self._history = history
        self._pauses: list[asyncio.Task[None]] = []
        self._turn = asyncio.Lock()

    async def befall(self, step: Fault, proxies: Proxies) -> None:
        """Do what the step says; a pause goes on beside what follows."""
        kind, now = type(step).__name__, self._stage.clock.monotonic()
        self._history.disturbances.append(Disturbance(kind, now))
        if isinstance(step, Restart):
            await self._restart()
        elif isinstance(step, Pause):
            self._pause(step.seconds)
        elif isinstance(step, Cut):
            for _, proxy in proxies:
                proxy.cut()
        else:
            for who, proxy in proxies:
                if who == step.who:
                    self._disturb(step, proxy)

    def _disturb(self, step: CutAtWrite | Delay | HalfClose, proxy: FaultProxy) -> None:
        if isinstance(step, CutAtWrite):
            proxy.cut_at_write(step.k, step.when)
        elif isinstance(step, Delay):
            seconds = self._stage.scaled(step.seconds)
            proxy.delay(seconds, seconds)
        else:
            proxy.half_close(up=step.way == "up", down=step.way == "down")

    async def _restart(self) -> None:
        restart = self._stage.harness.restart
        assert restart is not None, "this harness cannot restart its broker"
        await self._pauses_end()  # or what goes on would be another process
        await self._stage.wait(_all([restart()]))

    def _pause(self, seconds: float) -> None:
        pause = self._stage.harness.pause
        assert pause is not None, "this harness cannot pause its broker"
        work = self._one_after_the_other(pause(self._stage.scaled(seconds)))
        self._pauses.append(self._stage.tasks.spawn(work, "a pause of the broker"))

    async def _one_after_the_other(self, pause: Awaitable[None]) -> None:
        async with self._turn:
            await pause

    async def _pauses_end(self) -> None:
        pauses, self._pauses = self._pauses, []
        await self._stage.wait(_all(pauses))

    async def end(self, proxies: Proxies) -> None:
        """Let everything be well from now on."""
        await self._pauses_end()
        for _, proxy in proxies:
            proxy.heal()


async def _all(works: Iterable[Awaitable[None]]) -> None:
    await asyncio.gather(*works)
