"""Nodes in a JetStream KV bucket, one key per id, written by compare and set.

A reader judges by the time the server gave each record and the server's time now: expiry by the
bucket's age comes up to a second late, and a watch does not tell of it (nats-server 2.10 to 2.15).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from catga.errors import DecodeError
from catga.spi import EventKind, Mode, NodeRecord, NodeStore, Sighting, Snapshot
from catga_nats import names
from catga_nats.bucket import DELETED, Bucket, Entry
from catga_nats.connection import Connection
from catga_nats.parser import Message
from catga_nats.provisioning import Provisioner

__all__ = ["KvNodes"]

_TIMEOUT = 5.0
_SHORTEST_WAIT = 2.0
_TRIES = 4
_MOST_STRANGERS = 100


class KvNodes(NodeStore):
    """The nodes of one namespace; the bucket is made by whoever registers first."""

    def __init__(
        self,
        connection: Connection,
        provisioner: Provisioner,
        bucket: Bucket,
        namespace: str,
        ttl: float,
        mode: Mode,
    ) -> None:
        self._connection = connection
        self._provisioner = provisioner
        self._bucket = bucket
        self._namespace = namespace
        self._ttl = ttl
        self._mode = mode
        self._hint = names.nodes_hint(namespace)
        # A heartbeat that is not confirmed must leave time for another one.
        self._patience = min(_TIMEOUT, max(ttl / 3, _SHORTEST_WAIT))
        self._written: dict[str, tuple[int, float]] = {}
        """The revision of what we wrote last, and until when it surely holds, by id."""
        self._strangers: set[str] = set()

    # ---- writing

    async def register(self, record: NodeRecord) -> bool:
        """Read the key, then write it unless somebody else has it or was faster."""
        ttl = max(self._ttl, record.ttl)
        await self._provisioner.prepare_nodes(self._namespace, ttl, self._mode)
        for _ in range(_TRIES):
            entry, now = await self._bucket.last(record.node.id)
            if _holder(entry, now) not in {"", record.owner}:
                return False
            if await self._write(record, 0 if entry is None else entry.sequence):
                await self._tell()
                return True
        return False

    async def renew(self, record: NodeRecord) -> bool:
        """Write over our own last revision: one message and its confirmation."""
        return await self._write_over(record)

    async def deregister(self, record: NodeRecord) -> bool:
        """Write the marker by which every KV client knows that a key is gone."""
        done = await self._write_over(record, DELETED)
        if done:
            self._written.pop(record.node.id, None)
            await self._tell()
        return done

    async def _write_over(
        self, record: NodeRecord, headers: Mapping[str, str] | None = None
    ) -> bool:
        expected, until = self._written.get(record.node.id, (0, 0.0))
        known = expected and self._connection.mux.clock.monotonic() < until
        if known and await self._write(record, expected, headers):
            return True
        # A confirmation may have been lost: then what stands there is ours all the same. And when
        # a lease has ended is for the server to say.
        for _ in range(_TRIES):
            entry, now = await self._bucket.last(record.node.id)
            if entry is None or _holder(entry, now) != record.owner:
                return False
            if await self._write(record, entry.sequence, headers):
                return True
        return False

    async def _write(
        self, record: NodeRecord, expected: int, headers: Mapping[str, str] | None = None
    ) -> bool:
        """Write the next revision; False when there is another one than was expected."""
        name, body = record.node.id, b"" if headers else record.to_bytes()
        until = self._connection.mux.clock.monotonic() + record.ttl
        sequence = await self._bucket.write(name, body, expected, self._patience, headers)
        if sequence:
            self._written[name] = sequence, until
        return bool(sequence)

    async def _tell(self) -> None:
        await self._connection.client.send(self._hint, b"")

    # ---- reading

    async def snapshot(self) -> Snapshot:
        """Read the bucket, and leave out whose lease has ended."""
        entries, now = await self._bucket.entries()
        present = {}
        for name, entry in entries.items():
            record = _record(entry)
            if record is None or record.node.id != name:
                self._note_stranger(name, entry)
            elif (left := _left(record, now)) > 0:
                present[name] = Sighting(record.node, record.owner, left)
        gone = (name for name, entry in entries.items() if entry.deleted)
        return Snapshot(present, frozenset(gone))

    def _note_stranger(self, name: str, entry: Entry) -> None:
        known = entry.deleted or name in self._strangers
        if not known and len(self._strangers) < _MOST_STRANGERS:
            self._strangers.add(name)
            words = f"the key {name[:80]} of {names.nodes_bucket(self._namespace)} holds no node"
            self._connection.emit(EventKind.TROUBLE, f"{words}: it is passed over")

    # ---- hints

    @asynccontextmanager
    async def hints(self, wake: Callable[[], None]) -> AsyncIterator[None]:
        """A core subscription: nothing on the server that can be behind, or lost at a restart.

        Nodes say themselves that they came or went, and heartbeats say nothing: through a watch of
        the bucket every heartbeat would reach everybody.
        """

        def heard(_: Sequence[Message]) -> None:
            wake()

        async def reconnected() -> None:
            wake()

        connection = self._connection
        subscription = await connection.client.subscribe_all(self._hint, heard)
        try:
            await connection.confirm(self._hint)
            connection.on_reconnected.append(reconnected)
            try:
                yield
            finally:
                connection.on_reconnected.remove(reconnected)
        finally:
            await connection.client.unsubscribe_gently(subscription, _TIMEOUT)


def _record(entry: Entry) -> NodeRecord | None:
    """Return what stands there, if it is one of ours."""
    if entry.deleted:
        return None
    try:
        return NodeRecord.from_bytes(entry.value, entry.written)
    except DecodeError:
        return None


def _left(record: NodeRecord, now: datetime) -> float:
    """Return the seconds of its lease that are left."""
    return record.ttl - (now - record.node.last_seen).total_seconds()


def _holder(entry: Entry | None, now: datetime) -> str:
    """Return who has the id; empty when it is free."""
    record = None if entry is None else _record(entry)
    return record.owner if record is not None and _left(record, now) > 0 else ""
