"""What is stored for one type: its entries, the ids it knows, and who is to get them."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import deque
from collections.abc import Sequence
from datetime import datetime

import msgspec

from catga.spi import Clock, Kind, Outgoing, Receipt, Source, Start, Subject, Timer
from catga_inmemory.groups import Group

__all__ = ["Entry", "Stream"]


class Entry(msgspec.Struct, gc=False, eq=False):
    """One stored message. The garbage collector need not visit it, of which there are many."""

    sequence: str
    subject: Subject
    body: bytes
    message_id: str
    stored_at: float
    replays: int = 0
    attempts: int = 0
    """Made on another copy before this one."""
    open_groups: int = 0
    """How many groups have not finished it."""
    waiters: tuple[asyncio.Future[None], ...] = ()
    """Who waits for the last of them."""

    def finish_one(self) -> None:
        """One group has handled or parked it."""
        self.open_groups -= 1
        if self.open_groups == 0 and self.waiters:
            for waiter in self.waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self.waiters = ()


class Stream:
    """All that is stored for one type: log, directed and replayed entries, groups, ids."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._numbers = itertools.count(1)
        self.entries: dict[str, Entry] = {}
        """By sequence."""
        self._by_age: deque[Entry] = deque()
        """The same: what is deleted in front of a dictionary costs whoever looks for its first."""
        self.groups: dict[str, Group] = {}
        self.dead: dict[Subject, dict[str, Entry]] = {}
        """Dead letters, which nothing trims: beside the entries, where their ids are known."""
        self._ids: dict[str, dict[str, Entry]] = {}
        """By the text of the subject."""
        self.waiting: dict[Timer, Entry] = {}
        """What waits for its time: among the entries it would keep others from being trimmed."""
        self.dedupe_window = 600.0
        self.retention = float("inf")

    def declare(self, source: Source) -> Group:
        """Return the group of this source, created at its start when it is new."""
        group = self.groups.get(source.group)
        if group is None:
            group = self.groups[source.group] = Group(self._clock, source)
            old = source.ephemeral or source.start is Start.NEW
            group.add(
                [
                    entry
                    for entry in self.entries.values()
                    if _is_for(entry.subject, source.group) and (entry.subject.group or not old)
                ]
            )
        return group

    def forget(self, name: str) -> None:
        """Remove an ephemeral group; nothing waits for it any more."""
        group = self.groups.pop(name, None)
        if group is not None:
            group.close()

    def append(self, batch: Sequence[Outgoing]) -> list[Receipt]:
        """Store messages to one subject, or find the copies that their ids have."""
        now = self._clock.monotonic()
        self._trim(now)
        subject, window = batch[0].subject, self.dedupe_window
        ids = self._ids.setdefault(subject.text, {})
        receipts: list[Receipt] = []
        fresh: list[Entry] = []
        for outgoing in batch:
            id_ = outgoing.message_id
            entry = ids.get(id_)
            known = entry is not None and now - entry.stored_at < window
            if entry is None or not known:
                sequence = str(next(self._numbers))
                entry = ids[id_] = Entry(
                    sequence, subject, outgoing.body, id_, now, outgoing.replays, outgoing.attempts
                )
                if outgoing.not_before is None or not self._hold_back(entry, outgoing.not_before):
                    fresh.append(entry)
            receipts.append(Receipt(id_, entry.sequence, known))
        if subject.kind is Kind.DEAD:
            self.dead.setdefault(subject, {}).update((entry.sequence, entry) for entry in fresh)
        self._add(subject, fresh)
        return receipts

    def _hold_back(self, entry: Entry, not_before: datetime) -> bool:
        """Say whether an entry has to wait for its time; if so the groups get it then."""
        left = (not_before - self._clock.now()).total_seconds()
        if left <= 0:
            return False

        def due() -> None:
            del self.waiting[timer]
            entry.stored_at = self._clock.monotonic()  # it is retained from now on
            self._add(entry.subject, [entry])

        timer = self._clock.call_later(left, due)
        self.waiting[timer] = entry
        return True

    def _add(self, subject: Subject, entries: Sequence[Entry]) -> None:
        """Let the groups have what was stored under one subject."""
        for entry in entries:
            self.entries[entry.sequence] = entry
        self._by_age.extend(entries)
        for name, group in self.groups.items():
            if _is_for(subject, name):
                group.add(entries)

    async def wait_handled(self, sequences: Sequence[str]) -> None:
        """Return once every group has handled or parked these."""
        for sequence in reversed(sequences):  # when the last is done most others are
            entry = self.entries.get(sequence)
            if entry is not None and entry.open_groups > 0:
                waiter = asyncio.get_running_loop().create_future()
                entry.waiters = (*entry.waiters, waiter)
                await waiter

    def close(self) -> None:
        """Forget every group and every timer."""
        for timer in self.waiting:
            timer.cancel()
        self.waiting.clear()
        for name in list(self.groups):
            self.forget(name)

    def _trim(self, now: float) -> None:
        """Drop what every declared group has finished and what is older than W and retention."""
        if not self.groups:
            return
        for_ever = math.isinf(self.dedupe_window)
        longest = self.retention if for_ever else max(self.dedupe_window, self.retention)
        horizon, by_age = now - longest, self._by_age
        while by_age and by_age[0].open_groups <= 0 and by_age[0].stored_at <= horizon:
            entry = by_age.popleft()
            del self.entries[entry.sequence]
            if for_ever:
                if entry.subject.kind is not Kind.DEAD:
                    entry.body = b""  # only its id is remembered
                continue
            ids = self._ids[entry.subject.text]
            if ids.get(entry.message_id) is entry:
                del ids[entry.message_id]


def _is_for(subject: Subject, group: str) -> bool:
    """Say whether what is stored there is for this group; dead letters are for nobody."""
    return subject.kind is Kind.LOG or (subject.kind is not Kind.DEAD and subject.group == group)
