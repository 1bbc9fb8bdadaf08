"""The subscriptions of the in-memory transport."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from catga.spi import (
    Ack,
    Commit,
    Conflict,
    Delivery,
    Done,
    Lost,
    Nack,
    Outgoing,
    Reject,
    Settle,
    Settlement,
    SettleResult,
    Source,
    Subscription,
)
from catga_inmemory.broker import LiveListener, MemoryBroker
from catga_inmemory.groups import Group, GroupMember

if TYPE_CHECKING:
    from catga_inmemory.inbox import MemoryInbox
    from catga_inmemory.log import Entry

__all__ = ["LiveSubscription", "LogSubscription"]


class LiveSubscription(Subscription):
    """QoS 0, and the responses to this bus."""

    def __init__(self, broker: MemoryBroker, source: Source, listener: LiveListener) -> None:
        self._broker = broker
        self._source = source
        self._listener = listener
        if source.reply:
            broker.replies[source.group] = listener
        else:
            broker.listen(source, listener)

    @property
    def lease(self) -> float:
        """There is nothing to keep."""
        return float("inf")

    async def receive(self, limit: int, max_wait: float) -> list[Delivery]:
        """Return what came in."""
        return await self._listener.mailbox.receive(limit, max_wait)

    async def settle(self, batch: Sequence[Settle]) -> list[SettleResult]:
        """Nothing to settle."""
        return [Done()] * len(batch)

    async def extend(self, batch: Sequence[Delivery]) -> list[SettleResult]:
        """Nothing to extend."""
        return [Done()] * len(batch)

    async def drain(self) -> None:
        """Listen no more; what came in is still returned."""
        if self._source.reply:
            self._broker.replies.pop(self._source.group, None)
        else:
            self._broker.unlisten(self._source, self._listener)
        self._listener.mailbox.close()

    async def close(self) -> None:
        """Listen no more."""
        await self.drain()


class LogSubscription(Subscription, GroupMember):
    """One member of a durable group."""

    def __init__(self, broker: MemoryBroker, source: Source, inbox: MemoryInbox | None) -> None:
        self._broker = broker
        self._clock = broker.clock
        self._source = source
        self._inbox = inbox
        self._stream = broker.stream(source.namespace, source.type)
        self._group: Group = self._stream.declare(source)
        self._group.members.append(self)
        self._hand = self._group.hand()
        self._waiter: asyncio.Future[None] | None = None
        self._draining = False
        self._closed = False

    @property
    def lease(self) -> float:
        """The lease of the group, set by whoever declared it first."""
        return self._group.lease

    @property
    def _room(self) -> int:
        return self._source.window - len(self._hand)

    def wake(self) -> int:
        """Wake the reader, when there is one waiting and its window is not full."""
        room = 0 if self._waiter is None else max(0, self._room)
        if room:
            self._wake()
        return room

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def receive(self, limit: int, max_wait: float) -> list[Delivery]:
        """Take what is ready, waiting for it when there is nothing."""
        ready = self._group.ready and self._room > 0
        if not ready and not self._draining and max_wait > 0:
            self._waiter = asyncio.get_running_loop().create_future()
            timer = self._clock.call_later(max_wait, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        return [] if self._draining else self._group.take(min(limit, self._room), self._hand)

    async def settle(self, batch: Sequence[Settle]) -> list[SettleResult]:
        """Finish or give back each."""
        now = self._clock.monotonic()
        results = [self._settle_one(entry.delivery, entry.outcome, now) for entry in batch]
        self._look_again()
        return results

    def _look_again(self) -> None:
        """Wake the reader when it waits for room, and there is some now."""
        if self._group.ready:
            self.wake()

    def _settle_one(self, delivery: Delivery, outcome: Settlement, now: float) -> SettleResult:
        if not self._group.holds(self._hand, delivery, now):
            return _LOST
        entry: Entry = delivery.token
        self._hand.pop(entry, None)
        if isinstance(outcome, Nack):
            self._group.give_back(entry, delivery.attempt + 1, outcome.delay)
        else:
            entry.finish_one()
        return _DONE

    async def extend(self, batch: Sequence[Delivery]) -> list[SettleResult]:
        """Renew each lease that is still ours."""
        now = self._clock.monotonic()
        return [
            _DONE if self._group.extend(self._hand, delivery, now) else _LOST for delivery in batch
        ]

    async def commit(self, batch: Sequence[Commit]) -> list[SettleResult]:
        """Write and acknowledge in one step: nothing can come between within one loop turn."""
        now = self._clock.monotonic()
        results = [self._commit_one(commit, now) for commit in batch]
        self._look_again()
        return results

    def _commit_one(self, commit: Commit, now: float) -> SettleResult:
        inbox, effects, store = self._inbox, commit.effects, self._broker.effects
        before = inbox is not None and inbox.find(commit.record.key, now) is not None
        if effects is not None and not before and not store.fits(effects):
            held = self._group.holds(self._hand, commit.delivery, now)
            return Conflict() if held else _LOST
        result = self._settle_one(commit.delivery, _ACK, now)
        if not isinstance(result, Done):
            return result
        if before:
            return Done(before=True)
        if inbox is not None:
            inbox.note(commit.record, now)
            if effects is not None:
                store.apply(effects)
                for outgoing in effects.outgoing:
                    self._broker.store([outgoing])
        return result

    async def park(self, batch: Sequence[tuple[Delivery, Outgoing]]) -> list[SettleResult]:
        """Store and settle in one step: nothing can come between within one loop turn."""
        now = self._clock.monotonic()
        results: list[SettleResult] = []
        for delivery, letter in batch:
            result = self._settle_one(delivery, _PARKED, now)
            if isinstance(result, Done):
                self._broker.store([letter])
            results.append(result)
        self._look_again()
        return results

    async def drain(self) -> None:
        """Take nothing more."""
        self._draining = True
        if self in self._group.members:
            self._group.members.remove(self)
            self._group.call()  # it may have been woken for what it does not take now
        self._wake()

    async def close(self) -> None:
        """Take no further part; the leases of what is unsettled end by themselves."""
        if self._closed:
            return
        self._closed = True
        await self.drain()
        self._hand = self._group.leave(self._hand)
        if self._source.ephemeral:
            self._stream.forget(self._source.group)


_ACK, _PARKED, _DONE, _LOST = Ack(), Reject(), Done(), Lost()
"""One of each is enough for all."""
