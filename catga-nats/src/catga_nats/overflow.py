"""Room for what works: delayed retries must not fill up what a group may hold unsettled.

A delayed nak counts as unsettled until it comes again (measured: at `max_ack_pending` the server
hands out nothing more). Beyond a budget the message goes on as a copy for the group alone, which
waits outside of that count.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from datetime import timedelta

from catga.spi import (
    Ack,
    Clock,
    Delivery,
    Kind,
    Nack,
    Outgoing,
    QualityOfService,
    Receipt,
    Settle,
    Source,
    Subject,
)
from catga_nats.publishing import Publisher

__all__ = ["Overflow"]

_SHARE = 8
"""One member may hold back this part of the limit; what the others hold it learns now and then."""


class Overflow:
    """The delayed retries of one member, and how full the consumer was when last seen."""

    def __init__(self, publisher: Publisher, clock: Clock, source: Source, limit: float) -> None:
        self._publisher = publisher
        self._clock = clock
        self._redo = Subject(source.namespace, Kind.REDO, source.type, source.group)
        self._budget = max(limit / _SHARE, 1)
        self._waiting: list[float] = []
        self.limit = limit
        """Unsettled deliveries the server allows the group."""
        self.pending = 0
        """How many there were, over all members, when last asked."""

    @property
    def saturated(self) -> bool:
        """Whether the server hands out nothing more until something is settled."""
        return self.pending >= self.limit

    def __len__(self) -> int:
        """How many retries of this member wait at the server."""
        now = self._clock.monotonic()
        while self._waiting and self._waiting[0] <= now:
            heapq.heappop(self._waiting)
        return len(self._waiting)

    async def relieve(self, batch: Sequence[Settle]) -> Sequence[Settle]:
        """Return what is left to say to the server: a nak over the budget becomes an
        acknowledgement, once the copy that goes on instead is stored."""
        copies = {
            place: self._copy(entry.delivery, entry.outcome.delay)
            for place, entry in enumerate(batch)
            if isinstance(entry.outcome, Nack) and self._is_over(entry.delivery, entry.outcome)
        }
        if not copies:
            return batch
        results = await self._publisher.publish(list(copies.values()))
        entries = list(batch)
        for place, result in zip(copies, results, strict=True):
            if isinstance(result, Receipt):  # else it waits where it is: never lost
                entries[place] = Settle(batch[place].delivery, Ack(), batch[place].confirm)
        return entries

    def _is_over(self, delivery: Delivery, outcome: Nack) -> bool:
        now = self._clock.monotonic()
        if outcome.delay <= 0 or delivery.token is None or delivery.lease_until <= now:
            return False  # it does not wait, or is not ours any more
        if delivery.headers is not None:
            return False  # from outside, perhaps with its envelope there: a copy would lose it
        if len(self) >= self._budget or self.pending * 2 > self.limit:
            return True
        heapq.heappush(self._waiting, now + outcome.delay)
        return False

    def _copy(self, delivery: Delivery, delay: float) -> Outgoing:
        """One for each attempt: its id makes repeating this harmless."""
        return Outgoing(
            self._redo,
            delivery.body,
            f"retry.{delivery.sequence}.{delivery.attempt}",
            QualityOfService.AT_LEAST_ONCE,
            not_before=self._clock.now() + timedelta(seconds=delay),
            attempts=delivery.attempt,
            replays=delivery.replays,
        )
