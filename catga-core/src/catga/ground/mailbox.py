"""A bounded hand-over from callbacks to one reader: what every subscription is made of."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

from catga.ground.clock import Clock

__all__ = ["Mailbox"]

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Items put by callbacks, taken in batches by one reader.

    The mailbox itself sets no bound; whoever fills it asks `len()` first. `close` wakes the reader,
    who still gets what is inside and then empty lists.
    """

    __slots__ = ("_clock", "_closed", "_items", "_waiter")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._items: deque[T] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        """Whether nothing more will come."""
        return self._closed

    def put(self, item: T) -> None:
        """Add one item and wake the reader."""
        self._items.append(item)
        if self._waiter is not None:
            self._wake()

    def extend(self, items: Iterable[T]) -> None:
        """Add several items and wake the reader once."""
        self._items.extend(items)
        if self._waiter is not None and self._items:
            self._wake()

    def close(self) -> None:
        """Say that nothing more comes, and wake the reader."""
        self._closed = True
        self._wake()

    def clear(self) -> list[T]:
        """Take back everything that was not read."""
        left = list(self._items)
        self._items.clear()
        return left

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def receive(self, limit: int, max_wait: float) -> list[T]:
        """Return 1 to `limit` items, or none after `max_wait` seconds or once closed.

        Cancelled: nothing was taken out.
        """
        if not self._items and not self._closed and max_wait > 0:
            self._waiter = asyncio.get_running_loop().create_future()
            timer = self._clock.call_later(max_wait, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        items = self._items
        if len(items) <= limit:
            taken = list(items)
            items.clear()
            return taken
        return [items.popleft() for _ in range(limit)]
