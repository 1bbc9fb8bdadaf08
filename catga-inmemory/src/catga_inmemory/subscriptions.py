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
    SettleResult,
    Source,
    Subscription,
)
from catga_inmemory.broker import LiveListener, MemoryBroker
from catga_inmemory.log import Flight, Group, GroupMember

if TYPE_CHECKING:
    from catga_inmemory.transport import MemoryInbox

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
        self._source = source
        self._inbox = inbox
        self._stream = broker.stream(source.namespace, source.type)
        self._group: Group = self._stream.declare(source)
        self._group.members.append(self)
        self._waiter: asyncio.Future[None] | None = None
        self._in_flight: set[Flight] = set()
        self._draining = False
        self._closed = False

    @property
    def lease(self) -> float:
        """The lease of the group, set by whoever declared it first."""
        return self._group.lease

    @property
    def _room(self) -> int:
        return self._source.window - len(self._in_flight)

    def wake(self) -> bool:
        """Wake the reader, when there is one waiting and its window is not full."""
        waiting = self._waiter is not None and self._room > 0
        if waiting:
            self._wake()
        return waiting

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def receive(self, limit: int, max_wait: float) -> list[Delivery]:
        """Take what is ready, waiting for it when there is nothing."""
        ready = self._group.ready and self._room > 0
        if not ready and not self._draining and max_wait > 0:
            self._waiter = asyncio.get_running_loop().create_future()
            timer = self._broker.clock.call_later(max_wait, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        if self._draining:
            return []
        flights = self._group.take(min(limit, self._room), self._in_flight)
        return [
            Delivery(
                flight.entry.subject,
                flight.entry.body,
                flight.attempt,
                str(flight.entry.sequence),
                flight.lease_until,
                flight,
                replays=flight.entry.replays,
            )
            for flight in flights
        ]

    async def settle(self, batch: Sequence[Settle]) -> list[SettleResult]:
        """Finish or give back each."""
        results = [self._settle_one(entry) for entry in batch]
        self._look_again()
        return results

    def _look_again(self) -> None:
        """Wake the reader when it waits for room, and there is some now."""
        if self._group.ready:
            self.wake()

    def _settle_one(self, entry: Settle) -> SettleResult:
        flight: Flight = entry.delivery.token
        if isinstance(entry.outcome, Nack):
            done = self._group.give_back(flight, entry.outcome.delay)
        else:
            done = self._group.finish(flight)
        return Done() if done else Lost()

    async def extend(self, batch: Sequence[Delivery]) -> list[SettleResult]:
        """Renew each lease that is still ours."""
        results: list[SettleResult] = []
        for delivery in batch:
            held = self._group.extend(delivery.token)
            if held:
                delivery.lease_until = delivery.token.lease_until
            results.append(Done() if held else Lost())
        return results

    async def commit(self, batch: Sequence[Commit]) -> list[SettleResult]:
        """Write and acknowledge in one step: nothing can come between within one loop turn."""
        results = [self._commit_one(commit) for commit in batch]
        self._look_again()
        return results

    def _commit_one(self, commit: Commit) -> SettleResult:
        inbox, effects, store = self._inbox, commit.effects, self._broker.effects
        before = inbox is not None and inbox.find(commit.record.key) is not None
        if effects is not None and not before and not store.fits(effects):
            return Conflict() if self._group.holds(commit.delivery.token) else Lost()
        result = self._settle_one(Settle(commit.delivery, Ack()))
        if before:
            return Done(before=True) if isinstance(result, Done) else result
        if isinstance(result, Done) and inbox is not None:
            inbox.note(commit.record)
            if effects is not None:
                store.apply(effects)
                for outgoing in effects.outgoing:
                    subject = outgoing.subject
                    self._broker.stream(subject.namespace, subject.type).append(outgoing)
        return result

    async def park(self, batch: Sequence[tuple[Delivery, Outgoing]]) -> list[SettleResult]:
        """Store and settle in one step: nothing can come between within one loop turn."""
        results: list[SettleResult] = []
        for delivery, letter in batch:
            done = self._settle_one(Settle(delivery, Reject()))
            if isinstance(done, Done):
                subject = letter.subject
                self._broker.stream(subject.namespace, subject.type).append(letter)
            results.append(done)
        self._look_again()
        return results

    async def drain(self) -> None:
        """Take nothing more."""
        self._draining = True
        if self in self._group.members:
            self._group.members.remove(self)
        self._wake()

    async def close(self) -> None:
        """Take no further part; the leases of what is unsettled end by themselves."""
        if self._closed:
            return
        self._closed = True
        await self.drain()
        if self._source.ephemeral:
            self._stream.forget(self._source.group)
