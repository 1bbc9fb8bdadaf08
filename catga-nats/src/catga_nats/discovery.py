"""Nodes in a JetStream KV bucket, one key per id, written by compare and set.

A reader judges by the time the server gave each record and the server's time now: expiry by the
bucket's age comes up to a second late, and a watch does not tell of it (nats-server 2.10 to 2.15).
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import attrs
import msgspec
from nats.aio.msg import Msg

from catga.errors import ConnectionLost, DecodeError, PayloadTooLarge, TransportError
from catga.spi import EventKind, Mode, NodeRecord, NodeStore, Sighting, Snapshot
from catga_nats import names
from catga_nats.api import JetStreamApi
from catga_nats.connection import Connection
from catga_nats.errors import ApiError, api_failure, missing_error
from catga_nats.mux import Batch, Missing, Series
from catga_nats.provisioning import Provisioner

__all__ = ["KvNodes"]

_TIMEOUT = 5.0
_SHORTEST_WAIT = 2.0
_TRIES = 4
_MOST_STRANGERS = 100
_BATCH_GET = (2, 11)
"""Several keys in one request. Source: docs.nats.io, NATS 2.11 release notes, batch direct get."""
_HEADER_BYTES = 128
_NO_STREAM = 10059
_NO_MESSAGE = 10037
_OTHER_SEQUENCE = 10071
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_OPERATION = "KV-Operation"


@attrs.frozen
class _Entry:
    """The last revision of one key."""

    sequence: int
    written: datetime
    """By the server's clock."""
    deleted: bool
    value: bytes = attrs.field(repr=False)

    def record(self) -> NodeRecord | None:
        """Return what stands there, if it is one of ours."""
        if self.deleted:
            return None
        try:
            return NodeRecord.from_bytes(self.value, self.written)
        except DecodeError:
            return None

    def left(self, record: NodeRecord, now: datetime) -> float:
        """Return the seconds of its lease that are left."""
        return record.ttl - (now - self.written).total_seconds()

    def holder(self, now: datetime) -> str:
        """Return who has the id; empty when it is free."""
        record = self.record()
        return record.owner if record is not None and self.left(record, now) > 0 else ""


class KvNodes(NodeStore):
    """The nodes of one namespace; the bucket is made by whoever registers first."""

    def __init__(
        self,
        connection: Connection,
        provisioner: Provisioner,
        api: JetStreamApi,
        namespace: str,
        ttl: float,
        mode: Mode,
    ) -> None:
        self._connection = connection
        self._provisioner = provisioner
        self._api = api
        self._namespace = namespace
        self._ttl = ttl
        self._mode = mode
        self._stream = names.nodes_stream(namespace)
        self._prefix = f"$KV.{names.nodes_bucket(namespace)}."
        self._hint = names.nodes_hint(namespace)
        self._written: dict[str, tuple[int, float]] = {}
        """The revision of what we wrote last, and until when it surely holds, by id."""
        self._strangers: set[str] = set()

    # ---- writing

    async def register(self, record: NodeRecord) -> bool:
        """Read the key, then write it unless somebody else has it or was faster."""
        await self._provisioner.prepare_nodes(
            self._namespace, max(self._ttl, record.ttl), self._mode
        )
        for _ in range(_TRIES):
            sequence, holder = await self._read(record.node.id)
            if holder not in {"", record.owner}:
                return False
            if await self._write(record, sequence):
                await self._tell()
                return True
        return False

    async def renew(self, record: NodeRecord) -> bool:
        """Write over our own last revision: one message and its confirmation."""
        return await self._write_over(record)

    async def deregister(self, record: NodeRecord) -> bool:
        """Write the marker by which every KV client knows that a key is gone."""
        done = await self._write_over(record, {_OPERATION: "DEL"})
        if done:
            self._written.pop(record.node.id, None)
            await self._tell()
        return done

    async def _write_over(
        self, record: NodeRecord, headers: Mapping[str, str] | None = None
    ) -> bool:
        name = record.node.id
        expected, until = self._written.get(name, (0, 0.0))
        known = expected and self._connection.mux.clock.monotonic() < until
        if known and await self._write(record, expected, headers):
            return True
        # A confirmation may have been lost: then what stands there is ours all the same. And when
        # a lease has ended is for the server to say.
        for _ in range(_TRIES):
            sequence, holder = await self._read(name)
            if holder != record.owner:
                return False
            if await self._write(record, sequence, headers):
                return True
        return False

    async def _write(
        self, record: NodeRecord, expected: int, headers: Mapping[str, str] | None = None
    ) -> bool:
        """Write the next revision; False when there is another one than was expected."""
        mux = self._connection.mux
        batch, until = Batch(mux), mux.clock.monotonic() + record.ttl
        subject = self._prefix + record.node.id
        given = {_EXPECTED: str(expected), **(headers or {})}
        body, client = b"" if headers else record.to_bytes(), self._connection.client
        if len(body) + _HEADER_BYTES > client.max_payload:  # the server would end the connection
            raise PayloadTooLarge(len(body) + _HEADER_BYTES, client.max_payload)
        if not await client.send(subject, body, batch.expect(subject), given):
            batch.unsent()
        (answer,) = await batch.wait(self._patience)
        if isinstance(answer, Missing):
            raise missing_error(answer, f"writing the node {record.node.id}")
        if not answer.data:  # a status: nobody stores it
            raise ConnectionLost(f"nobody stores the nodes of {self._namespace} now")
        ack = msgspec.json.decode(answer.data)
        if error := ack.get("error"):
            if error.get("err_code") == _OTHER_SEQUENCE:
                return False
            raise TransportError(f"a node was refused: {error.get('description')}")
        self._written[record.node.id] = ack["seq"], until
        return True

    @property
    def _patience(self) -> float:
        """A heartbeat that is not confirmed must leave time for another one."""
        return min(_TIMEOUT, max(self._ttl / 3, _SHORTEST_WAIT))

    async def _tell(self) -> None:
        await self._connection.client.send(self._hint, b"")

    # ---- reading

    async def _read(self, name: str) -> tuple[int, str]:
        """Return the last revision of one key, 0 without any, and who holds it, if anybody."""
        found, info = await self._api.call(
            [
                (f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": self._prefix + name}),
                (f"STREAM.INFO.{self._stream}", None),
            ]
        )
        told, entry = self._there(info), self._entry(found)
        if told is None or entry is None:
            return 0, ""
        return entry.sequence, entry.holder(_time(told["ts"]))

    def _entry(self, found: dict[str, Any] | ApiError) -> _Entry | None:
        if not isinstance(found, ApiError):
            message = found["message"]
            headers = base64.b64decode(message.get("hdrs", ""))
            value = base64.b64decode(message.get("data", ""))
            deleted = f"{_OPERATION}:".encode() in headers
            return _Entry(message["seq"], _time(message["time"]), deleted, value)
        if found.err_code not in {_NO_MESSAGE, _NO_STREAM}:
            raise api_failure(f"the stream {self._stream}", found)
        return None

    async def snapshot(self) -> Snapshot:
        """Read all keys in one request (one for each key before nats-server 2.11).

        The server in charge of the stream says how far it is; another one that answers from an
        older copy is not believed.
        """
        info = await self._info()
        if info is None:
            return Snapshot({})
        entries = None
        if self._connection.version >= _BATCH_GET:
            entries = await self._read_at_once(info["state"]["last_seq"])
        if entries is None:
            info = await self._info({"subjects_filter": f"{self._prefix}>"})
            if info is None:
                return Snapshot({})
            entries = await self._read_each(list(info["state"].get("subjects") or ()))
        return self._seen(entries, _time(info["ts"]))

    async def _info(self, asked: object = None) -> dict[str, Any] | None:
        """Return what the server in charge says of the stream; None when there is no stream."""
        (info,) = await self._api.call([(f"STREAM.INFO.{self._stream}", asked)])
        return self._there(info)

    def _there(self, info: dict[str, Any] | ApiError) -> dict[str, Any] | None:
        if not isinstance(info, ApiError):
            return info
        if info.err_code == _NO_STREAM:
            return None
        raise api_failure(f"the stream {self._stream}", info)

    async def _read_at_once(self, sequence: int) -> dict[str, _Entry] | None:
        """Return the last revision of every key; None when this way does not lead to all, which
        the server allows up to 1024 keys."""
        series = Series(self._connection.mux, f"$JS.API.DIRECT.GET.{self._stream}")
        await series.ask(msgspec.json.encode({"multi_last": [f"{self._prefix}>"]}), _TIMEOUT)
        end = series.end
        if isinstance(end, Missing):
            raise missing_error(end, f"reading the nodes of {self._namespace}")
        headers = end.headers or {}
        if headers.get("Status") == "404":
            return {}
        complete = headers.get("Status") == "204" and headers.get("Nats-Num-Pending") == "0"
        if not complete or int(headers.get("Nats-UpTo-Sequence", 0)) < sequence:
            return None
        return dict(self._direct(message) for message in series.messages)

    def _direct(self, message: Msg) -> tuple[str, _Entry]:
        headers = message.headers or {}
        entry = _Entry(
            int(headers["Nats-Sequence"]),
            _time(headers["Nats-Time-Stamp"]),
            _OPERATION in headers,
            message.data,
        )
        return headers["Nats-Subject"].removeprefix(self._prefix), entry

    async def _read_each(self, subjects: Sequence[str]) -> dict[str, _Entry]:
        calls = [(f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": each}) for each in subjects]
        results = await self._api.call(calls) if calls else []
        return {
            subject.removeprefix(self._prefix): entry
            for subject, result in zip(subjects, results, strict=True)
            if (entry := self._entry(result)) is not None
        }

    def _seen(self, entries: Mapping[str, _Entry], now: datetime) -> Snapshot:
        present = {}
        for name, entry in entries.items():
            if (record := entry.record()) is None:
                self._note_stranger(name, entry)
            elif (left := entry.left(record, now)) > 0 and record.node.id == name:
                present[name] = Sighting(record.node, record.owner, left)
        gone = (name for name, entry in entries.items() if entry.deleted)
        return Snapshot(present, frozenset(gone))

    def _note_stranger(self, name: str, entry: _Entry) -> None:
        known = entry.deleted or name in self._strangers
        if not known and len(self._strangers) < _MOST_STRANGERS:
            self._strangers.add(name)
            words = f"{self._prefix}{name[:80]} holds no node: it is passed over"
            self._connection.emit(EventKind.TROUBLE, words)

    # ---- hints

    @asynccontextmanager
    async def hints(self, wake: Callable[[], None]) -> AsyncIterator[None]:
        """A core subscription: nothing on the server that can be behind, or lost at a restart.

        Nodes say themselves that they came or went, and heartbeats say nothing: through a watch of
        the bucket every heartbeat would reach everybody.
        """

        async def heard(_: Msg) -> None:
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


def _time(text: str) -> datetime:
    """Read the server's time, which has nanoseconds."""
    head, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{head}.{fraction[:6]:0<6}").replace(tzinfo=UTC)
