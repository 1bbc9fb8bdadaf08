"""Nodes in memory: one table per namespace, with the time of the clock that the broker is lent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import attrs

from catga.spi import Clock, NodeRecord, NodeStore, Sighting, Snapshot

__all__ = ["MemoryNodes", "NodeTable"]


@attrs.frozen
class _Seat:
    """One id: who has it, or had it."""

    record: NodeRecord
    until: float
    """On the monotonic clock: when the lease ends, or when it is forgotten that it left."""
    seen: datetime
    left: bool = False


class NodeTable:
    """What the broker knows of the nodes of one namespace."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seats: dict[str, _Seat] = {}
        self.listeners: list[Callable[[], None]] = []

    def holder(self, name: str) -> str:
        """Return the owner of an id; empty when it is free."""
        seat = self._seats.get(name)
        if seat is None or seat.left or seat.until <= self._clock.monotonic():
            return ""
        return seat.record.owner

    def write(self, record: NodeRecord, *, left: bool = False) -> None:
        """Begin the lease of a record, or its remembrance."""
        until = self._clock.monotonic() + record.ttl
        self._seats[record.node.id] = _Seat(record, until, self._clock.now(), left)

    def clear(self) -> None:
        """Forget them all; who watches goes on."""
        self._seats.clear()

    def tell(self) -> None:
        """Wake who watches."""
        for listener in tuple(self.listeners):
            listener()

    def snapshot(self) -> Snapshot:
        """Return who is there; what is over is forgotten."""
        now = self._clock.monotonic()
        self._seats = {name: seat for name, seat in self._seats.items() if seat.until > now}
        present = {
            name: Sighting(
                attrs.evolve(seat.record.node, last_seen=seat.seen),
                seat.record.owner,
                seat.until - now,
            )
            for name, seat in self._seats.items()
            if not seat.left
        }
        return Snapshot(present, frozenset(self._seats.keys() - present.keys()))


class MemoryNodes(NodeStore):
    """The table of one namespace; `table` raises `ConnectionLost` when the transport is closed."""

    def __init__(self, table: Callable[[], NodeTable]) -> None:
        self._table = table

    async def register(self, record: NodeRecord) -> bool:
        """Take the id if it is free or ours."""
        table = self._table()
        if table.holder(record.node.id) not in {"", record.owner}:
            return False
        table.write(record)
        table.tell()
        return True

    async def renew(self, record: NodeRecord) -> bool:
        """Begin the lease again, if it is ours."""
        table = self._table()
        held = table.holder(record.node.id) == record.owner
        if held:
            table.write(record)
        return held

    async def deregister(self, record: NodeRecord) -> bool:
        """Leave, if the id is ours."""
        table = self._table()
        held = table.holder(record.node.id) == record.owner
        if held:
            table.write(record, left=True)
            table.tell()
        return held

    async def snapshot(self) -> Snapshot:
        """Return who is there."""
        return self._table().snapshot()

    @asynccontextmanager
    async def hints(self, wake: Callable[[], None]) -> AsyncIterator[None]:
        """Call `wake` at each change, in the turn of who makes it."""
        listeners = self._table().listeners
        listeners.append(wake)
        try:
            yield
        finally:
            listeners.remove(wake)
