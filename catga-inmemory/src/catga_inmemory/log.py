"""The durable half of the broker in memory: entries, and each group's place in them."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import deque
from datetime import datetime

import attrs

from catga.spi import Clock, Kind, Outgoing, Source, Start, Subject, Timer

__all__ = ["Entry", "Flight", "Group", "Stream"]


@attrs.define(eq=False)
class Entry:
    """One stored message."""

    sequence: int
    subject: Subject
    body: bytes
    message_id: str
    stored_at: float
    replays: int = 0
    attempts: int = 0
    """Made on another copy before this one."""
    open_groups: int = 0
    """How many groups have not finished it."""
    finished: asyncio.Future[None] | None = None

    def finish_one(self) -> None:
        """One group has handled or parked it."""
        self.open_groups -= 1
        if self.open_groups == 0 and self.finished is not None and not self.finished.done():
            self.finished.set_result(None)


@attrs.define(eq=False)
class Flight:
    """One delivery of one entry to one member; `live` until settled or taken over."""

    entry: Entry
    attempt: int
    lease_until: float
    holder: set[Flight]
    """What the member has in hand; it takes room in its window until settled or taken over."""
    live: bool = True

    def end(self) -> None:
        """It is nobody's any more."""
        self.live = False
        self.holder.discard(self)


class Group:
    """One consumer group on one type: what waits, what is in flight, what is due later."""

    def __init__(self, clock: Clock, source: Source) -> None:
        self._clock = clock
        self.lease = source.lease
        self.ready: deque[tuple[Entry, int]] = deque()
        self.members: list[GroupMember] = []
        self._open: set[Entry] = set()
        self._leases: deque[tuple[float, Flight]] = deque()
        self._timer: Timer | None = None
        self._delayed: set[Timer] = set()

    def add(self, entry: Entry) -> None:
        """Take on a new entry."""
        entry.open_groups += 1
        self._open.add(entry)
        self.push(entry, entry.attempts + 1)

    def push(self, entry: Entry, attempt: int) -> None:
        """Make an entry available and wake one member."""
        self.ready.append((entry, attempt))
        for member in self.members:
            if member.wake():
                return

    def take(self, limit: int, holder: set[Flight]) -> list[Flight]:
        """Hand out up to `limit` entries, each under a fresh lease, into what `holder` has."""
        until = self._clock.monotonic() + self.lease
        flights: list[Flight] = []
        ready = self.ready
        while ready and len(flights) < limit:
            entry, attempt = ready.popleft()
            flight = Flight(entry, attempt, until, holder)
            flights.append(flight)
            self._leases.append((until, flight))
        holder.update(flights)
        if flights and self._timer is None:
            self._watch()
        return flights

    def finish(self, flight: Flight) -> bool:
        """Settle for good. False when it was settled or taken over before."""
        if not self._land(flight):
            return False
        self._open.discard(flight.entry)
        flight.entry.finish_one()
        return True

    def give_back(self, flight: Flight, delay: float) -> bool:
        """Deliver again after `delay` seconds, as the next attempt."""
        if not self._land(flight):
            return False
        attempt = flight.attempt + 1
        if delay <= 0:
            self.push(flight.entry, attempt)
            return True
        timers = self._delayed

        def due() -> None:
            timers.discard(timer)
            self.push(flight.entry, attempt)

        timer = self._clock.call_later(delay, due)
        timers.add(timer)
        return True

    def extend(self, flight: Flight) -> bool:
        """Renew the lease. False when it is gone."""
        if not self.holds(flight):
            return False
        flight.lease_until = self._clock.monotonic() + self.lease
        self._leases.append((flight.lease_until, flight))
        return True

    def close(self) -> None:
        """End the group: nothing waits for it any more."""
        for timer in (*self._delayed, *([self._timer] if self._timer else ())):
            timer.cancel()
        for entry in self._open:
            entry.finish_one()
        self._open.clear()

    def holds(self, flight: Flight) -> bool:
        """Say whether this delivery is still its receiver's."""
        return flight.live and flight.lease_until > self._clock.monotonic()

    def _land(self, flight: Flight) -> bool:
        held = self.holds(flight)
        if held:
            flight.end()
        return held

    def _watch(self) -> None:
        """Take over what has expired and sleep until the next lease can end."""
        self._timer = None
        now = self._clock.monotonic()
        leases = self._leases
        while leases:
            until, flight = leases[0]
            if flight.live and until == flight.lease_until and until > now:
                self._timer = self._clock.call_later(until - now, self._watch)
                return
            leases.popleft()
            if flight.live and until == flight.lease_until:
                flight.end()
                self.push(flight.entry, flight.attempt + 1)


class GroupMember:
    """The part of a subscription a group needs to know."""

    def wake(self) -> bool:
        """Say that there is something to take; True when it was waiting for that, with room."""
        raise NotImplementedError


class Stream:
    """All that is stored for one type: log, directed and replayed entries, groups, ids."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sequence = itertools.count(1)
        self.entries: dict[int, Entry] = {}
        self.groups: dict[str, Group] = {}
        self.dead: dict[Subject, dict[int, Entry]] = {}
        """Dead letters, which nothing trims: beside the entries, where their ids are known."""
        self._ids: dict[str, Entry] = {}
        self.waiting: dict[Timer, Entry] = {}
        """What waits for its time: among the entries it would keep others from being trimmed."""
        self.dedupe_window = 600.0
        self.retention = float("inf")

    def declare(self, source: Source) -> Group:
        """Return the group of this source, created at its start when it is new."""
        group = self.groups.get(source.group)
        if group is None:
            group = self.groups[source.group] = Group(self._clock, source)
            for entry in self.entries.values():
                old = source.ephemeral or source.start is Start.NEW
                if _is_for(entry.subject, source.group) and (entry.subject.group or not old):
                    group.add(entry)
        return group

    def forget(self, name: str) -> None:
        """Remove an ephemeral group; nothing waits for it any more."""
        group = self.groups.pop(name, None)
        if group is not None:
            group.close()

    def append(self, outgoing: Outgoing) -> tuple[Entry, bool]:
        """Store one message, or find the copy that its id has; say whether it was there."""
        self._trim()
        key = f"{outgoing.subject.text}/{outgoing.message_id}"
        now = self._clock.monotonic()
        known = self._ids.get(key)
        if known is not None and now - known.stored_at < self.dedupe_window:
            return known, True
        entry = Entry(
            next(self._sequence),
            outgoing.subject,
            outgoing.body,
            outgoing.message_id,
            now,
            outgoing.replays,
            outgoing.attempts,
        )
        if outgoing.subject.kind is Kind.DEAD:
            self.dead.setdefault(outgoing.subject, {})[entry.sequence] = entry
        self._ids[key] = entry
        self._add_in_time(entry, outgoing.not_before)
        return entry, False

    def _add_in_time(self, entry: Entry, not_before: datetime | None) -> None:
        """Let the groups have an entry, now or once its time has come."""
        left = 0.0
        if not_before is not None:
            left = (not_before - self._clock.now()).total_seconds()
        if left <= 0:
            self._add(entry)
            return

        def due() -> None:
            del self.waiting[timer]
            entry.stored_at = self._clock.monotonic()  # it is retained from now on
            self._add(entry)

        timer = self._clock.call_later(left, due)
        self.waiting[timer] = entry

    def _add(self, entry: Entry) -> None:
        self.entries[entry.sequence] = entry
        for name, group in self.groups.items():
            if _is_for(entry.subject, name):
                group.add(entry)

    def close(self) -> None:
        """Forget every group and every timer."""
        for timer in self.waiting:
            timer.cancel()
        self.waiting.clear()
        for name in list(self.groups):
            self.forget(name)

    def _trim(self) -> None:
        """Drop what every declared group has finished and what is older than W and retention."""
        for_ever = math.isinf(self.dedupe_window)
        longest = self.retention if for_ever else max(self.dedupe_window, self.retention)
        horizon = self._clock.monotonic() - longest
        while self.groups and self.entries:
            entry = next(iter(self.entries.values()))
            if entry.open_groups > 0 or entry.stored_at > horizon:
                return
            del self.entries[entry.sequence]
            if for_ever:
                entry.body = b""  # only its id is remembered
                continue
            key = f"{entry.subject.text}/{entry.message_id}"
            if self._ids.get(key) is entry:
                del self._ids[key]


def _is_for(subject: Subject, group: str) -> bool:
    """Say whether what is stored there is for this group; dead letters are for nobody."""
    return subject.kind is Kind.LOG or (subject.kind is not Kind.DEAD and subject.group == group)
