"""A JetStream KV bucket by its stream: compare and set, and all keys at once.

Source: docs.nats.io, "NATS JetStream Wire API", and ADR-8, "JetStream based Key-Value Stores" (read
for nats-server 2.10 to 2.15).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
import msgspec

from catga.errors import ConnectionLost, PayloadTooLarge, TransportError
from catga_nats.api import JetStreamApi
from catga_nats.connection import Connection
from catga_nats.errors import WRONG_SEQUENCE, ApiError, api_failure, missing_error
from catga_nats.lookups import BATCH_GET
from catga_nats.mux import Batch, Missing
from catga_nats.parser import Message

__all__ = ["DELETED", "Bucket", "Entry"]

_TIMEOUT = 5.0
_HEADER_BYTES = 128
_NO_STREAM = 10059
_NO_MESSAGE = 10037
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_OPERATION = "KV-Operation"
DELETED: Mapping[str, str] = {_OPERATION: "DEL"}
"""The headers by which every KV client knows that a key is gone."""


@attrs.frozen
class Entry:
    """The last revision of one key."""

    sequence: int
    written: datetime
    """By the server's clock."""
    deleted: bool
    value: bytes = attrs.field(repr=False)


class Bucket:
    """One bucket; it need not be there yet."""

    def __init__(self, connection: Connection, api: JetStreamApi, name: str) -> None:
        self._connection = connection
        self._api = api
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."

    async def write(
        self,
        key: str,
        body: bytes,
        expected: int,
        timeout: float,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Write the next revision and return its number; 0 when the last one is not `expected` (0:
        none), and nothing was written."""
        client, batch = self._connection.client, Batch(self._connection.mux)
        size = len(body) + _HEADER_BYTES
        if size > client.max_payload:  # the server would end the connection
            raise PayloadTooLarge(size, client.max_payload)
        subject = self._prefix + key
        given = {_EXPECTED: str(expected), **(headers or {})}
        if not await client.send(subject, body, batch.expect(subject), given):
            batch.unsent()
        (answer,) = await batch.wait(timeout)
        if isinstance(answer, Missing):
            raise missing_error(answer, f"writing {subject}")
        if not answer.data:  # a status: nobody stores it
            raise ConnectionLost(f"nobody stores {subject} now")
        ack = msgspec.json.decode(answer.data)
        if error := ack.get("error"):
            if error.get("err_code") in WRONG_SEQUENCE:
                return 0
            raise TransportError(f"{subject} was refused: {error.get('description')}")
        return int(ack["seq"])

    async def last(self, key: str) -> tuple[Entry | None, datetime]:
        """Return the last revision of one key, and the time of the server in charge (without a
        bucket no time at all)."""
        found, info = await self._api.call(
            [
                (f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": self._prefix + key}),
                (f"STREAM.INFO.{self._stream}", None),
            ]
        )
        told = self._there(info)
        now = datetime.fromtimestamp(0, UTC) if told is None else _time(told["ts"])
        return self._entry(found), now

    async def entries(self) -> tuple[dict[str, Entry], datetime]:
        """Return the last revision of every key, and the time of the server in charge.

        One request for all keys (one for each before nats-server 2.11). The server in charge says
        how far it is; another one that answers from an older copy is not believed.
        """
        nothing: dict[str, Entry] = {}
        info = await self._info()
        if info is None:
            return nothing, datetime.fromtimestamp(0, UTC)
        if self._connection.version >= BATCH_GET:
            found = await self._read_at_once(info["state"]["last_seq"])
            if found is not None:
                return found, _time(info["ts"])
        info = await self._info({"subjects_filter": f"{self._prefix}>"}) or info
        return await self._read_each(list(info["state"].get("subjects") or ())), _time(info["ts"])

    async def _info(self, asked: object = None) -> dict[str, Any] | None:
        (info,) = await self._api.call([(f"STREAM.INFO.{self._stream}", asked)])
        return self._there(info)

    def _there(self, info: dict[str, Any] | ApiError) -> dict[str, Any] | None:
        """Return what the server in charge says of the stream; None when there is no stream."""
        if not isinstance(info, ApiError):
            return info
        if info.err_code == _NO_STREAM:
            return None
        raise api_failure(f"the stream {self._stream}", info)

    async def _read_at_once(self, sequence: int) -> dict[str, Entry] | None:
        """Return what one request brings; None when it does not bring all, as of `sequence`: the
        server allows 1024 keys."""
        ask = msgspec.json.encode({"multi_last": [f"{self._prefix}>"]})
        where = f"$JS.API.DIRECT.GET.{self._stream}"
        (series,) = await self._connection.mux.read([(where, ask)], _TIMEOUT)
        end = series.end
        if isinstance(end, Missing):
            raise missing_error(end, f"reading the stream {self._stream}")
        headers = end.headers or {}
        if headers.get("Status") == "404":
            return {}
        complete = headers.get("Status") == "204" and headers.get("Nats-Num-Pending") == "0"
        if not complete or int(headers.get("Nats-UpTo-Sequence", 0)) < sequence:
            return None
        return dict(self._direct(message) for message in series.messages)

    def _direct(self, message: Message) -> tuple[str, Entry]:
        headers = message.headers or {}
        written = _time(headers["Nats-Time-Stamp"])
        deleted = _OPERATION in headers
        entry = Entry(int(headers["Nats-Sequence"]), written, deleted, message.data)
        return headers["Nats-Subject"].removeprefix(self._prefix), entry

    async def _read_each(self, subjects: Sequence[str]) -> dict[str, Entry]:
        calls = [(f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": each}) for each in subjects]
        results = await self._api.call(calls) if calls else []
        return {
            subject.removeprefix(self._prefix): entry
            for subject, result in zip(subjects, results, strict=True)
            if (entry := self._entry(result)) is not None
        }

    def _entry(self, found: dict[str, Any] | ApiError) -> Entry | None:
        if not isinstance(found, ApiError):
            message = found["message"]
            headers = base64.b64decode(message.get("hdrs", ""))
            value = base64.b64decode(message.get("data", ""))
            deleted = f"{_OPERATION}:".encode() in headers
            return Entry(message["seq"], _time(message["time"]), deleted, value)
        if found.err_code not in {_NO_MESSAGE, _NO_STREAM}:
            raise api_failure(f"the stream {self._stream}", found)
        return None


def _time(text: str) -> datetime:
    """Read the server's time, which has nanoseconds."""
    head, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{head}.{fraction[:6]:0<6}").replace(tzinfo=UTC)
