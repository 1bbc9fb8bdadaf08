"""The pace of a law: its seconds, real or by hand, and waiting that never lasts for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from catga.ground.clock import Clock, ManualClock, settle_loop
from catga.ground.tasks import TaskOwner

__all__ = ["Pace"]

T = TypeVar("T")

_STEP = 0.01


class Pace:
    """Lets time go by. A second of the law takes `scale` seconds of `clock`."""

    def __init__(self, clock: Clock, scale: float, tasks: TaskOwner) -> None:
        self.clock = clock
        self._scale = scale
        self._tasks = tasks

    def scaled(self, seconds: float) -> float:
        """Return how long `seconds` of the law really take."""
        return seconds * self._scale

    def patience(self, seconds: float) -> float:
        """Return how long to wait for what may take `seconds`: more where time goes by slowly."""
        return seconds * max(1.0, self._scale)

    async def pass_time(self, seconds: float) -> None:
        """Let `seconds` of the law go by."""
        if isinstance(self.clock, ManualClock):
            await self.clock.advance(self.scaled(seconds))
            await settle_loop()
        else:
            await self.clock.sleep(self.scaled(seconds))

    async def until(
        self,
        condition: Callable[[], Any],
        seconds: float = 20.0,
        failure: str = "the condition was never met",
    ) -> None:
        """Wait until `condition` holds; `AssertionError` after `seconds`, never scaled down."""
        deadline = self.clock.monotonic() + self.patience(seconds)
        while not condition():
            assert self.clock.monotonic() < deadline, failure
            if isinstance(self.clock, ManualClock):
                await self.clock.advance(_STEP)
            else:
                await self.clock.sleep(_STEP)

    async def wait(
        self, work: Coroutine[Any, Any, T], seconds: float = 20.0, what: str = "it"
    ) -> T:
        """Return what `work` returns, while time goes on; `AssertionError` after `seconds`, never
        scaled down.

        Cancelled or too late, `work` is cancelled.
        """
        task = self._tasks.spawn(work, "a step of the law")
        try:
            if isinstance(self.clock, ManualClock):
                await self.until(task.done, seconds, f"{what} took too long")
            else:
                await asyncio.wait([task], timeout=self.patience(seconds))
            assert task.done(), f"{what} took too long"
        finally:
            task.cancel()
        return task.result()
