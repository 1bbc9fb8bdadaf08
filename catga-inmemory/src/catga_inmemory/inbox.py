"""Completion records in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

from catga.spi import Clock, Completion, Done, InboxStore, Record, SettleResult

__all__ = ["MemoryInbox", "RecordTable"]

_Key: TypeAlias = tuple[str, str, str, str]


class RecordTable:
    """The records of one broker, each with the time until which it is kept."""

    def __init__(self) -> None:
        self._records: dict[_Key, tuple[float, Record]] = {}
        self._by_age: deque[_Key] = deque()

    def __len__(self) -> int:
        return len(self._records)

    def find(self, key: Completion, now: float) -> Record | None:
        """Return the record while it is kept."""
        known = self._records.get(_record_key(key))
        return None if known is None or known[0] <= now else known[1]

    def note(self, record: Record, now: float, until: float) -> None:
        """Write one record, unless it is there, and forget the oldest that have expired."""
        records, by_age = self._records, self._by_age
        while by_age and self._is_over(by_age[0], now):
            records.pop(by_age.popleft(), None)
        if self.find(record.key, now) is None:
            key = _record_key(record.key)
            records[key] = (until, record)
            by_age.append(key)

    def _is_over(self, key: _Key, now: float) -> bool:
        known = self._records.get(key)
        return known is None or known[0] <= now

    def remove(self, namespace: str) -> None:
        """Forget those of a namespace."""
        for key in [key for key in self._records if key[0] == namespace]:
            del self._records[key]


class MemoryInbox(InboxStore):
    """Completion records in a table, each kept for D seconds."""

    def __init__(self, table: RecordTable, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self.ttl = 86_400.0

    async def completed(self, keys: Sequence[Completion]) -> list[bool]:
        """Look each key up."""
        now = self._clock.monotonic()
        return [self.find(key, now) is not None for key in keys]

    async def responses(self, keys: Sequence[Completion]) -> list[bytes | None]:
        """Look each key up."""
        now = self._clock.monotonic()
        found = [self.find(key, now) for key in keys]
        return [None if record is None else record.response for record in found]

    async def record(self, records: Sequence[Record]) -> list[SettleResult]:
        """Write each; cannot fail."""
        now = self._clock.monotonic()
        for record in records:
            self.note(record, now)
        return [Done()] * len(records)

    def find(self, key: Completion, now: float) -> Record | None:
        """Return the record while it is kept."""
        return self._table.find(key, now)

    def note(self, record: Record, now: float) -> None:
        """Write one record, unless it is there."""
        self._table.note(record, now, now + self.ttl)


def _record_key(key: Completion) -> _Key:
    return (key.namespace, key.group, key.type, key.message_id)
