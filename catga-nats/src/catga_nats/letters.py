"""The dead letters in their stream: read in batches, removed by sequence.

Source: docs.nats.io, "JetStream Wire API"; nats-architecture-and-design ADR-31 (direct get, its
batches since nats-server 2.11).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import msgspec

from catga.errors import ConfigurationError, ConnectionLost, TransportError
from catga.spi import (
    DeadLetterStore,
    Done,
    Lost,
    SettleResult,
    StoredLetter,
    Subject,
    Unknown,
    parse_subject,
)
from catga_nats import names
from catga_nats.api import JetStreamApi, Result
from catga_nats.connection import Connection
from catga_nats.errors import ApiError, missing_error
from catga_nats.headers import direct_sequence
from catga_nats.lookups import BATCH_GET
from catga_nats.mux import Missing

__all__ = ["StreamLetters"]

_NO_STREAM = 10059
_NOT_THERE = frozenset({10037, 10043, _NO_STREAM})
_DELETE_FAILED = 10057
_NOTHING = ("no message found", "EOF")
"""What it was, in the server's words: the code stands for whatever went wrong."""
_SECONDS = 5.0


class StreamLetters(DeadLetterStore):
    """The stream of dead letters of any namespace."""

    def __init__(self, connection: Connection, api: JetStreamApi) -> None:
        self._connection = connection
        self._api = api

    async def subjects(self, namespace: str) -> dict[Subject, int]:
        """Ask the stream for its subjects, page by page."""
        counts: dict[str, int] = {}
        while True:
            asked = {"subjects_filter": f"{namespace}.dead.>", "offset": len(counts)}
            (info,) = await self._api.call([(_call("STREAM.INFO", namespace), asked)])
            if isinstance(info, ApiError):
                if info.err_code == _NO_STREAM:
                    return {}
                raise TransportError(f"the dead letters of {namespace} cannot be counted: {info}")
            page = info["state"].get("subjects") or {}
            counts |= page
            if not page or len(counts) >= info.get("total", 0):
                break
        return {subject: count for text, count in counts.items() if (subject := _parse(text))}

    async def read(self, subject: Subject, after: str = "", limit: int = 100) -> list[StoredLetter]:
        """Read in one request where the server gives batches from a single copy, else one by
        one."""
        start = int(after or 0) + 1
        (info,) = await self._api.call([(_call("STREAM.INFO", subject.namespace), None)])
        if isinstance(info, ApiError):
            if info.err_code == _NO_STREAM:
                return []
            raise TransportError(f"the dead letters of {subject} cannot be read: {info}")
        config = info["config"]
        # Of several copies a direct get may ask one that is behind.
        direct = config.get("allow_direct") and config.get("num_replicas", 1) == 1
        if direct and self._connection.version >= BATCH_GET:
            return await self._read_batches(subject, start, limit)
        return await self._read_each(subject, start, limit)

    async def _read_batches(self, subject: Subject, start: int, limit: int) -> list[StoredLetter]:
        letters: list[StoredLetter] = []
        while len(letters) < limit:
            asked = {"seq": start, "next_by_subj": subject.text, "batch": limit - len(letters)}
            where = f"$JS.API.DIRECT.GET.{names.dead_stream(subject.namespace)}"
            ask = [(where, msgspec.json.encode(asked))]
            (series,) = await self._connection.mux.read(ask, _SECONDS)
            if isinstance(series.end, Missing):
                raise missing_error(series.end, f"reading the dead letters of {subject}")
            for message in series.messages:
                sequence = direct_sequence(message.head)
                letters.append(StoredLetter(subject, sequence, message.data))
            end = series.end.headers or {}
            if end.get("Status") not in {"204", "404"}:
                raise ConnectionLost(
                    f"the dead letters of {subject} cannot be read now: status {end.get('Status')}"
                )
            if not series.messages or end.get("Nats-Num-Pending", "0") == "0":
                break
            start = int(letters[-1].sequence) + 1  # the server ends a batch by its size, too
        return letters

    async def _read_each(self, subject: Subject, start: int, limit: int) -> list[StoredLetter]:
        letters: list[StoredLetter] = []
        while len(letters) < limit:
            asked = {"seq": start, "next_by_subj": subject.text}
            (found,) = await self._api.call([(_call("STREAM.MSG.GET", subject.namespace), asked)])
            if isinstance(found, ApiError):
                if found.err_code in _NOT_THERE:
                    break
                raise TransportError(f"the dead letters of {subject} cannot be read: {found}")
            message: dict[str, Any] = found["message"]
            body = base64.b64decode(message.get("data", ""))
            letters.append(StoredLetter(subject, str(message["seq"]), body))
            start = message["seq"] + 1
        return letters

    async def remove(self, letters: Sequence[StoredLetter]) -> list[SettleResult]:
        """Delete each by its sequence, all in one round trip."""
        calls = [
            (
                _call("STREAM.MSG.DELETE", letter.subject.namespace),
                {"seq": int(letter.sequence), "no_erase": True},
            )
            for letter in letters
        ]
        try:
            results = await self._api.try_once(calls) if calls else []
        except TransportError as error:
            return [Unknown(error)] * len(letters)
        return [_removed(result) for result in results]


def _call(name: str, namespace: str) -> str:
    return f"{name}.{names.dead_stream(namespace)}"


def _parse(text: str) -> Subject | None:
    """Return None for what somebody else has stored there."""
    try:
        return parse_subject(text)
    except ConfigurationError:
        return None


def _removed(result: Result) -> SettleResult:
    if not isinstance(result, ApiError):
        return Done()
    gone = result.err_code == _DELETE_FAILED and result.description.endswith(_NOTHING)
    if gone or result.err_code in _NOT_THERE:
        return Lost()
    return Unknown(TransportError(f"a dead letter could not be removed: {result}"))
