"""One delivery in hand, from its receipt until it is settled."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING, Any

from catga.engine.context import Context
from catga.model.envelope import Envelope
from catga.spi import Delivery, Outgoing, Source, Subscription

if TYPE_CHECKING:
    from catga.engine.settling import Settler

__all__ = ["Feed", "State", "Stop", "Work"]


class State(Enum):
    """Where a delivery is."""

    QUEUED = "queued"
    RUNNING = "running"
    """Its handler runs: the only state in which its task may be cancelled."""
    SETTLING = "settling"
    GONE = "gone"


class Stop(Enum):
    """Why a running handler was cancelled by us."""

    TIMEOUT = "the handler ran out of time"
    LEASE_LOST = "the lease was lost"
    DRAIN = "the drain deadline passed"


class Work:
    """One delivery in hand."""

    __slots__ = (
        "conflicts",
        "context",
        "deadline",
        "delivery",
        "ended",
        "envelope",
        "error",
        "exactly",
        "feed",
        "reply",
        "response",
        "since",
        "state",
        "stop",
        "task",
    )

    def __init__(self, feed: Feed, delivery: Delivery, now: float) -> None:
        self.feed = feed
        self.delivery = delivery
        self.envelope: Envelope | None = None
        self.context: Context | None = None
        self.exactly = False
        """Whether it is stored and must not be handled twice (QoS 2)."""
        self.response: Any = None
        self.error: BaseException | None = None
        """What its handler raised."""
        self.reply: Outgoing | None = None
        """What is sent to the requester once it is recorded (QoS 2)."""
        self.state = State.QUEUED
        self.conflicts = 0
        self.stop: Stop | None = None
        self.task: asyncio.Task[Any] | None = None
        self.deadline = float("inf")
        self.since = now
        """When it came."""
        self.ended = ""
        """What became of it, once it is off our hands."""

    def cancel(self, why: Stop) -> None:
        """Cancel the handler if, and only if, it is running right now."""
        if self.state is State.RUNNING and self.stop is None and self.task is not None:
            self.stop = why
            self.task.cancel()


class Feed:
    """One subscription of a consumer, and what is in hand from it."""

    __slots__ = (
        "_waiter",
        "draining",
        "extending",
        "settler",
        "source",
        "subscription",
        "window",
        "works",
    )

    def __init__(self, subscription: Subscription, source: Source, window: int) -> None:
        self.subscription = subscription
        self.source = source
        self.window = window
        self.works: set[Work] = set()
        self.settler: Settler | None = None
        """None at QoS 0, where there is nothing to settle."""
        self.extending = False
        self.draining = False
        self._waiter: asyncio.Future[None] | None = None

    async def room(self) -> int:
        """Return how many more may be taken in hand, waiting until it is a quarter of the window.

        Small reads would undo the batching that everything below depends on. Does not wait once
        `stop` was called.
        """
        wanted = max(1, self.window // 4)
        while (free := self.window - len(self.works)) < wanted and not self.draining:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return max(free, 1)

    def leave(self) -> None:
        """Take nothing more in hand; a reader that is woken ends."""
        self.draining = True
        self._wake()

    async def stop(self) -> None:
        """Take nothing more in hand, and give back what was not handed out."""
        self.leave()
        await self.subscription.drain()

    def release(self, work: Work) -> None:
        """Take one delivery off our hands."""
        work.state = State.GONE
        self.works.discard(work)
        if self._waiter is not None:
            self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
