"""One deadline for several waits in a row: each takes what the others have left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from catga.ground.clock import Clock
from catga.ground.tasks import first_of

__all__ = ["Deadline"]


class Deadline:
    """A moment on a clock."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._at = clock.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left; 0 when there are none."""
        return max(0.0, self._at - self._clock.monotonic())

    async def wait(self, tasks: Iterable[asyncio.Task[Any]]) -> bool:
        """Wait until all have ended, or the moment has come; say whether they all did."""
        pending = [task for task in tasks if not task.done()]
        if not pending:
            return True
        expired = asyncio.Event()
        timer = self._clock.call_later(self.left, expired.set)
        waiting = asyncio.ensure_future(asyncio.wait(pending))
        try:
            return await first_of(waiting, expired)
        finally:
            timer.cancel()
            waiting.cancel()
