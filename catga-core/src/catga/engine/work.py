"""One delivery in hand, from its receipt until it is settled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from catga.codecs import UNREAD
from catga.engine.context import Context
from catga.engine.deadletters import DeadLetter
from catga.engine.transaction import Atomic
from catga.ground.ids import derived_ids, new_message_id
from catga.model.envelope import Envelope
from catga.model.qos import QualityOfService
from catga.spi import Effects, Outgoing, Record, Settle, Source, Subscription

if TYPE_CHECKING:
    from catga.engine.settling import Settler

__all__ = ["Feed", "State", "Stop", "Work"]


_STALE = 0.25
"""A share of its lease."""


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


class Work(Settle, eq=False):
    """One delivery in hand, and what is to become of it: what is settled is the same object."""

    feed: Feed = None  # type: ignore[assignment]  # always given
    envelope: Envelope | None = None
    """None when it could not be read."""
    message: Any = UNREAD
    """What its handler is given; `UNREAD` while it is still to be read from the envelope."""
    qos: QualityOfService = QualityOfService.AT_MOST_ONCE
    since: float = 0.0
    """When it came."""
    exactly: bool = False
    """Whether it is stored and must not be handled twice (QoS 2)."""
    state: State = State.QUEUED
    response: Any = None
    """What its handler returned."""
    error: BaseException | None = None
    """What its handler raised."""
    reply: Outgoing | None = None
    """What is sent to the requester once it is recorded (QoS 2)."""
    record: Record | None = None
    """To be written before (or with) the acknowledgement, or before the dead letter."""
    dead_letter: DeadLetter | None = None
    """To be parked before the rejection."""
    effects: Effects | None = None
    """To be written with the record, in one step."""
    conflicts: int = 0
    waited: bool = False
    """Whether it waited for another delivery of its id, of which something may be recorded now."""
    stop: Stop | None = None
    task: asyncio.Task[Any] | None = None
    deadline: float = float("inf")
    ended: str = ""
    """What became of it, once it is off our hands."""
    _context: Context | None = None
    _ids: Callable[[], str] | None = None

    @property
    def context(self) -> Context | None:
        """The delivery as its handler sees it, made when first asked for."""
        context = self._context
        if context is None and self.envelope is not None:
            feed = self.feed
            context = self._context = Context(
                self.envelope, self.delivery, feed.group, self.qos, feed.atomic
            )
        return context

    @property
    def written(self) -> Effects | None:
        """What its handler's transaction wrote, if it had one."""
        return None if self._context is None else self._context.effects

    def next_id(self) -> str:
        """Return the id of what its handler publishes next: the same ones in every run."""
        if self._ids is None:
            self._ids, envelope, group = new_message_id, self.envelope, self.feed.group
            if envelope is not None and group:
                # Of the group as well: two groups that publish the same are two senders.
                self._ids = derived_ids(group, envelope.type, envelope.id)
        return self._ids()

    def begin_anew(self) -> None:
        """Be as it was before its handler ran."""
        self._ids = self._context = self.reply = self.error = self.record = self.effects = None
        self.response = None
        self.state = State.QUEUED

    def cancel(self, why: Stop) -> None:
        """Cancel the handler if, and only if, it is running right now."""
        if self.state is State.RUNNING and self.stop is None and self.task is not None:
            self.stop = why
            self.task.cancel()


class Feed:
    """One subscription of a consumer, and what is in hand from it."""

    __slots__ = (
        "_waiter",
        "atomic",
        "draining",
        "extending",
        "group",
        "on_release",
        "settler",
        "source",
        "stale_after",
        "subscription",
        "window",
        "works",
    )

    def __init__(self, subscription: Subscription, source: Source, window: int, group: str) -> None:
        self.subscription = subscription
        self.source = source
        self.stale_after = subscription.lease * _STALE
        """Seconds for which it is believed that nobody else has completed a delivery."""
        self.group = group
        """Of the handler; empty for a broadcast listener."""
        self.atomic: Atomic | None = None
        """What begins its transactions, where the transport has them."""
        self.window = window
        self.works: set[Work] = set()
        self.settler: Settler | None = None
        """None at QoS 0, where there is nothing to settle."""
        self.on_release: Callable[[], None] | None = None
        """Called when something is off our hands, where somebody waits for that."""
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
        self._released()

    def release_all(self, works: Sequence[Work], word: str) -> None:
        """Take these off our hands; the word says what became of them all."""
        gone = State.GONE
        for work in works:
            work.state = gone
            work.ended = word
        self.works.difference_update(works)
        self._released()

    def _released(self) -> None:
        if self._waiter is not None:
            self._wake()
        if self.on_release is not None:
            self.on_release()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
