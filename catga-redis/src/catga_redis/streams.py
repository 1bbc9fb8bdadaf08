"""Durable subscriptions: what one member of a group holds of one type."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from math import ceil
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
from redis.exceptions import OutOfMemoryError

from catga.errors import CatgaError, SubscriptionClosed
from catga.spi import (
    LEASE_MARGIN,
    Commit,
    Conflict,
    Delivery,
    Done,
    EventKind,
    Lost,
    Mailbox,
    Nack,
    Outgoing,
    Refused,
    Settle,
    SettleResult,
    Source,
    Subscription,
    Unknown,
)
from catga_redis.entries import entry_order, read_fields
from catga_redis.errors import REPLY_ERRORS
from catga_redis.groups import NOBODY, end_groups, forget_members
from catga_redis.later import move_due
from catga_redis.names import StreamKey, source_streams
from catga_redis.scripts import RECLAIM
from catga_redis.session import Session
from catga_redis.settling import LOST, UNSEEN, Settler, Token, tell_gone
from catga_redis.wire import Line

if TYPE_CHECKING:
    from catga_redis.reader import GroupReader

__all__ = ["LogSubscription"]

T = TypeVar("T")

_RECLAIM_LIMIT = 100
_PARTS, _PARTS_COMMITTED = 2, 3
"""Of a window: one part is handled while the other comes. A commit takes the server as long as the
handlers, so that one more is committed meanwhile."""


@attrs.define(eq=False)
class _Place:
    """Where the search for idle entries of one stream goes on."""

    stream: StreamKey
    cursor: bytes = b"-"


class LogSubscription(Subscription):
    """One durable source, read through the connection of its group."""

    def __init__(self, session: Session, source: Source, group: str, reader: GroupReader) -> None:
        self.source = source
        self.part = max(1, source.window // _PARTS)
        """How much is read at once where more waits."""
        self.streams = source_streams(source, group)
        self.next_reclaim = 0.0
        self.unseen = False
        """Whether the server may have handed over something that never arrived here."""
        self.draining = False
        self._session = session
        self._settler = Settler(session, self._line_of)
        self._clock = session.runtime.clock
        self._reader = reader
        self._places = [_Place(stream) for stream in self.streams]
        self._mailbox: Mailbox[Delivery] = Mailbox(self._clock)
        self._held: set[Delivery] = set()
        self._newest: dict[StreamKey, bytes] = {}
        self.busy: set[StreamKey] = set()
        """The streams whose last read brought as much as was asked for."""
        self._wanted = False
        self._starved = False
        self._failure = ""
        self._refused = ""
        self._closed = False
        timeout = session.settings.pending_timeout
        self._lease = source.lease if timeout is None else timeout.total_seconds()
        named = b"%s/%s" % (group.encode(), session.member)
        self._name = b"" if source.ephemeral else named  # such a group has no other members

    @property
    def lease(self) -> float:
        """`pending_timeout`, or else the lease of the source."""
        return self._lease

    @property
    def room(self) -> int:
        """How many more deliveries the window has place for."""
        return 0 if self.draining else self.source.window - len(self._held)

    @property
    def hungry(self) -> bool:
        """Whether a read is worth it: a part of the window is free, or more was asked for.

        Small reads would undo the batching that everything above depends on.
        """
        room = self.room
        return room >= self.part or (room > 0 and self._wanted)

    async def announce(self) -> None:
        """Tell the other members how long this one keeps what it gets, before it gets anything;
        each time it looks for old entries it says so again."""
        stream = self.streams[0]
        lease = int(self._lease * 1000)
        if self._name:
            with suppress(OutOfMemoryError):  # the first look says so, also on a full server
                await self._session.line(stream.key).call(b"HSET", stream.leases, self._name, lease)

    # -- what comes in ---------------------------------------------------------------------------

    async def receive(self, limit: int, max_wait: float) -> list[Delivery]:
        """Return what the group's reader brought."""
        if not len(self._mailbox):
            self._wanted = True
            self._reader.poke(self)
        taken = await self._mailbox.receive(limit, max_wait)
        now = self._clock.monotonic()
        found = [each for each in taken if each in self._held and each.lease_until > now]
        if self._failure and not found:
            raise SubscriptionClosed(self._failure)
        return found

    def take(self, stream: StreamKey, entries: Iterable[Any], count: int = 1) -> None:
        """Keep what was handed over to this member just now."""
        until = self._clock.monotonic() + self._lease * (1 - LEASE_MARGIN)
        subject = stream.subject
        deliveries: list[Delivery] = []
        for id_, fields in entries:
            token = (stream, id_, count)
            if len(fields) == 2 and fields[0] == b"b":  # almost every one
                delivery = Delivery(subject, fields[1], count, id_.decode(), until, token)
            else:
                body, attempts, replays, headers = read_fields(fields)
                delivery = Delivery(
                    subject, body, count + attempts, id_.decode(), until, token, headers
                )
                delivery.replays = replays
            deliveries.append(delivery)
        if count == 1:
            self._newest[stream] = deliveries[-1].token[1]
        self._wanted = False
        self._held.update(deliveries)
        self._mailbox.extend(deliveries)

    def take_new(self, stream: StreamKey, entries: Sequence[Any], asked: int) -> None:
        """Keep what a read for at most so many brought, and remember whether there is more."""
        if entries:
            self.take(stream, entries)
        if len(entries) == asked:
            self.busy.add(stream)
        else:
            self.busy.discard(stream)

    def fail(self, reason: str) -> None:
        """Say that nothing will ever come again."""
        self._failure = reason
        self._mailbox.close()

    async def reclaim(self) -> None:
        """Take over what is due or was left by others, and note when to look again."""
        interval = self._session.settings.reclaim_interval.total_seconds()
        pause = min(interval, self._lease / 4) * self._reader.jitter()
        self.next_reclaim = self._clock.monotonic() + pause
        self._forget_expired()
        await self._keep_waiting()
        self._starved = self.room <= 0
        if self._starved or self.draining:
            return
        limit = min(max(1, self.room // len(self._places)), _RECLAIM_LIMIT)
        outcomes = await asyncio.gather(
            *(self._reclaim_stream(place, limit) for place in self._places),
            return_exceptions=True,
        )
        refused = ""
        for outcome in outcomes:
            if isinstance(outcome, CatgaError):
                self.unseen = True  # the reply may be what was lost
            elif isinstance(outcome, REPLY_ERRORS):
                refused = f"taking over what is due failed: {outcome}"
            elif isinstance(outcome, BaseException):
                raise outcome
        if refused not in ("", self._refused):
            self._session.emit(EventKind.TROUBLE, refused)
        self._refused = refused

    def _forget_expired(self) -> None:
        """What its receiver let expire is somebody else's, and takes no room here any more."""
        now = self._clock.monotonic()
        expired = [delivery for delivery in self._held if delivery.lease_until <= now]
        if expired:
            self._held.difference_update(expired)
            self._reader.poke(self)

    async def _keep_waiting(self) -> None:
        """Renew the leases of what no reader has taken yet: a slow handler must not make what
        waits behind it expire, each time as one more attempt."""
        waiting = self._mailbox.clear()
        self._mailbox.extend(waiting)
        threshold = self._clock.monotonic() + self._lease * 2 / 3
        late = [each for each in waiting if each.lease_until < threshold]
        if late:
            await self.extend(late)

    async def _reclaim_stream(self, place: _Place, limit: int) -> None:
        stream = place.stream
        keys = [stream.key, stream.retry, stream.later[0], stream.leases]
        member, lease = self._session.member, int(self._lease * 1000)
        values = [stream.group, member, lease, limit, place.cursor, self._name]
        due, later, place.cursor, gone, entries = await RECLAIM.run(
            self._session.line(stream.key), keys, values
        )
        for id_, count, fields in entries:
            self.take(stream, [(id_, fields)], count)
        tell_gone(self._session, stream, gone)
        if later == 0:
            later = await move_due(self._session, stream)
        for wait in (due, later):
            if wait >= 0:
                self.reclaim_in(wait / 1000)

    def reclaim_in(self, delay: float) -> None:
        """Look for what is due in `delay` seconds, if not earlier."""
        when = self._clock.monotonic() + delay
        if when < self.next_reclaim:
            self.next_reclaim = when
            self._reader.poke_reclaim()

    async def recover(self) -> None:
        """Give back what the server handed to this member and a broken connection swallowed."""
        self.unseen = False
        held = {delivery.token for delivery in self._held}
        for stream in self.streams:
            line, which = self._session.line(stream.key), (b"-", b"+", self.source.window * 2)
            words = (b"XPENDING", stream.key, stream.group, *which, self._session.member)
            try:
                pending = await line.call(*words)
            except REPLY_ERRORS:
                continue  # the group is gone; the reader makes it again
            newest = entry_order(self._newest.get(stream, b"0-0"))
            lost = [(stream, id_, count) for id_, _, _, count in pending]
            results = await self._settler.release(
                [
                    # New entries come in order: what is newer than all that came was not seen.
                    (token, UNSEEN if token[2] == 1 and entry_order(token[1]) > newest else 0)
                    for token in lost
                    if token not in held
                ]
            )
            if any(isinstance(each, Unknown) for each in results):
                self.unseen = True  # to be given back another time
        self.reclaim_in(0.0)

    # -- what goes out ---------------------------------------------------------------------------

    async def settle(self, batch: Sequence[Settle]) -> list[SettleResult]:
        """Acknowledge in one command per stream; give back in one script per stream."""
        results: list[SettleResult] = [LOST] * len(batch)
        now = self._clock.monotonic()
        acks: list[int] = []
        tokens: list[Token] = []
        nacks: list[int] = []
        work: list[tuple[Token, int]] = []
        held = self._held
        confirm = False
        for index, entry in enumerate(batch):
            delivery = entry.delivery
            if delivery not in held:
                continue
            held.discard(delivery)
            if type(entry.outcome) is Nack:
                nacks.append(index)
                work.append((delivery.token, _delay_ms(entry.outcome.delay)))
            elif delivery.lease_until > now:
                acks.append(index)
                tokens.append(delivery.token)
                confirm = confirm or entry.confirm
        self._has_room()  # first, so that the next read and this leave together
        if acks:
            outcomes = await self._settler.acknowledge(tokens, confirm=confirm)
            if len(acks) == len(batch):  # almost always
                results = outcomes
            else:
                for index, outcome in zip(acks, outcomes, strict=True):
                    results[index] = outcome
        if nacks:
            for index, outcome in zip(nacks, await self._settler.release(work), strict=True):
                results[index] = outcome
            self.reclaim_in(min(delay for _, delay in work) / 1000)
        self._keep_unknown([entry.delivery for entry in batch], results)
        return results

    async def extend(self, batch: Sequence[Delivery]) -> list[SettleResult]:
        """Start the lease of each anew that is still this member's."""
        until = self._clock.monotonic() + self._lease
        known = [delivery for delivery in batch if delivery in self._held]
        outcomes = await self._settler.extend([delivery.token for delivery in known])
        result_of: dict[Delivery, SettleResult] = dict(zip(known, outcomes, strict=True))
        for delivery, outcome in result_of.items():
            if isinstance(outcome, Done):
                delivery.lease_until = until
            elif isinstance(outcome, Lost):
                self._held.discard(delivery)
        self._has_room()
        return [result_of.get(delivery, LOST) for delivery in batch]

    async def commit(self, batch: Sequence[Commit]) -> list[SettleResult]:
        """Record and acknowledge in one script per stream."""
        self.part = max(1, self.source.window // _PARTS_COMMITTED)
        pairs = [(each.delivery, each) for each in batch]
        return await self._in_one_step(pairs, self._settler.commit)

    async def park(self, batch: Sequence[tuple[Delivery, Outgoing]]) -> list[SettleResult]:
        """Store the dead letters and acknowledge in one script per stream."""
        return await self._in_one_step(batch, self._settler.park)

    async def _in_one_step(
        self,
        batch: Sequence[tuple[Delivery, T]],
        step: Callable[[Sequence[tuple[Token, T]]], Awaitable[list[SettleResult]]],
    ) -> list[SettleResult]:
        results: list[SettleResult] = [LOST] * len(batch)
        known: list[int] = []
        for index, (delivery, _) in enumerate(batch):
            if delivery in self._held:
                self._held.discard(delivery)
                known.append(index)
        self._has_room()
        work = [(batch[index][0].token, batch[index][1]) for index in known]
        for index, outcome in zip(known, await step(work), strict=True):
            results[index] = outcome
        self._keep_unknown([delivery for delivery, _ in batch], results)
        return results

    def _keep_unknown(self, batch: Sequence[Delivery], results: Sequence[SettleResult]) -> None:
        """What may not have reached the server, or has changed nothing there, stays in hand."""
        if not {Unknown, Conflict, Refused}.isdisjoint(map(type, results)):
            for delivery, result in zip(batch, results, strict=True):
                if isinstance(result, Unknown | Conflict | Refused):
                    self._held.add(delivery)
        self._has_room()

    def _line_of(self, stream: StreamKey) -> Line:
        """What is settled when the reader has let go of this must find its own way."""
        return self._session.line(stream.key) if self.draining else self._reader.line

    def _has_room(self) -> None:
        if self._starved and self.room > 0:
            self._starved = False
            self.reclaim_in(0.0)
        self._reader.poke(self)

    # -- the end ---------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Read nothing more; what `receive` has not returned goes back as if it had not come."""
        if self.draining:
            return
        self.draining = True
        self._mailbox.close()
        await self._reader.leave(self)
        unseen = self._mailbox.clear()
        self._held.difference_update(unseen)
        await self._settler.release([(delivery.token, UNSEEN) for delivery in unseen])

    async def close(self) -> None:
        """Give back what is unsettled and leave the group."""
        if self._closed:
            return
        self._closed = True
        await self.drain()
        held, self._held = list(self._held), set()
        await self._settler.release([(delivery.token, 0) for delivery in held])
        if self.source.ephemeral:
            await end_groups(self._session, self.streams)
        else:
            await forget_members(self._session, self.streams, self._session.member, NOBODY)


def _delay_ms(seconds: float) -> int:
    """Return a delay that is never shorter: the server counts it from the beginning of its present
    millisecond, so that one more is needed."""
    return ceil(seconds * 1000) + 1 if seconds > 0 else 0
