"""Time, injected: the engine never asks the machine directly, so tests can hold it still."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["Clock", "ManualClock", "SystemClock", "Timer"]


class Timer(Protocol):
    """A callback that waits for its time."""

    def cancel(self) -> None:
        """Forget the callback; harmless after it ran."""


class Clock(ABC):
    """Where time comes from."""

    @abstractmethod
    def monotonic(self) -> float:
        """Return seconds that never go back, from an arbitrary start."""

    @abstractmethod
    def now(self) -> datetime:
        """Return the wall-clock time, aware, in UTC."""

    @abstractmethod
    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` on the event loop once `delay` seconds have passed."""

    async def sleep(self, delay: float) -> None:
        """Return after `delay` seconds. Cancelled: the timer is forgotten."""
        woken = asyncio.Event()
        timer = self.call_later(max(delay, 0.0), woken.set)
        try:
            await woken.wait()
        finally:
            timer.cancel()


class SystemClock(Clock):
    """The machine's clock and the running loop's timers."""

    monotonic = staticmethod(time.monotonic)  # asked per message: without a call in between

    def now(self) -> datetime:
        """Return the machine's wall-clock time in UTC."""
        return datetime.now(UTC)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Use the running loop's timer."""
        return asyncio.get_running_loop().call_later(delay, callback)

    async def sleep(self, delay: float) -> None:
        """Use the loop's own sleep."""
        await asyncio.sleep(delay)


class _ManualTimer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualClock(Clock):
    """A clock that moves only when told to, for tests in which seconds cost nothing."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, _ManualTimer]] = []

    def monotonic(self) -> float:
        """Return the seconds this clock was advanced by."""
        return self._elapsed

    def now(self) -> datetime:
        """Return the start plus the seconds this clock was advanced by."""
        return self._start + timedelta(seconds=self._elapsed)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Keep `callback` until `advance` passes its time."""
        timer = _ManualTimer(callback)
        heapq.heappush(self._timers, (self._elapsed + delay, next(self._order), timer))
        return timer

    def spend(self, seconds: float) -> None:
        """Move time on while nothing else runs, as what only computes does: nothing becomes due
        before the next `advance`."""
        self._elapsed += seconds

    async def advance(self, seconds: float) -> None:
        """Move time on, letting what becomes due run, in order, each at its own moment."""
        until = self._elapsed + seconds
        await settle_loop()
        while self._timers and self._timers[0][0] <= until:
            due, _, timer = heapq.heappop(self._timers)
            self._elapsed = max(self._elapsed, due)
            if timer.callback is not None:
                timer.callback()
                await settle_loop()
        self._elapsed = until


async def settle_loop(turns: int = 25) -> None:
    """Give every ready task `turns` chances to run; returns as soon as none is ready."""
    # asyncio does not tell in public; without it every turn is taken, which is only slower.
    ready = getattr(asyncio.get_running_loop(), "_ready", None)
    for _ in range(turns):
        await asyncio.sleep(0)
        if ready is not None and not ready:
            return
