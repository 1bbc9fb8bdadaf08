"""Completion records in a JetStream KV bucket, one key per (group, type, message id)."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from catga.errors import ConnectionLost, TransportError
from catga.spi import Completion, Done, InboxStore, Record, SettleResult, Unknown
from catga_nats import names
from catga_nats.connection import Connection
from catga_nats.errors import missing_error
from catga_nats.lookups import last_of_all
from catga_nats.mux import Answer, Batch, Missing

__all__ = ["KvInbox", "record_subject", "token", "tx_record_subject"]

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_TIMEOUT = 5.0
_DONE = Done()
_FIRST = b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: 0\r\n\r\n"
_WRONG_SEQUENCE = 10071
"""Error code. Source: nats-server 2.15, `server/errors.json`."""


def record_subject(key: Completion) -> str:
    """Return the subject of the record; ids that cannot stand in a subject are written in base64,
    behind a `=`, which no plain one holds."""
    return f"$KV.{names.bucket(key.namespace)}.{key.group}.{key.type}.{token(key.message_id)}"


def tx_record_subject(key: Completion) -> str:
    """Return the subject of a record that was committed with effects."""
    return f"{key.namespace}.tx.m.{key.group}.{key.type}.{token(key.message_id)}"


def token(text: str) -> str:
    """Return what stands for `text` in a subject."""
    if _PLAIN.fullmatch(text):
        return text
    return "=" + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


class KvInbox(InboxStore):
    """Shared by all members of a group; the bucket's max age is D."""

    def __init__(self, connection: Connection, streams: dict[str, dict[str, Any]]) -> None:
        self._connection = connection
        self._streams = streams

    async def completed(self, keys: Sequence[Completion]) -> list[bool]:
        """Look each up, all in one round trip."""
        return [body is not None for body in await self._read(keys)]

    async def responses(self, keys: Sequence[Completion]) -> list[bytes | None]:
        """Read each, all in one round trip."""
        return [body or None for body in await self._read(keys)]

    async def _read(self, keys: Sequence[Completion]) -> list[bytes | None]:
        wanted: dict[str, list[str]] = {}
        for key in keys:
            wanted.setdefault(names.inbox_stream(key.namespace), []).append(record_subject(key))
            if (stream := names.tx_stream(key.namespace)) in self._streams:
                wanted.setdefault(stream, []).append(tx_record_subject(key))
        found = await last_of_all(self._connection, wanted, self._streams)
        if not found:  # almost always
            return [None] * len(keys)
        return [found.get(record_subject(key), found.get(tx_record_subject(key))) for key in keys]

    async def record(self, records: Sequence[Record]) -> list[SettleResult]:
        """Write each, all in one round trip; what is there stays."""
        answers = Batch(self._connection.mux)
        await answers.send(
            [(record_subject(each.key), each.response or b"") for each in records], _FIRST
        )
        return [_recorded(answer) for answer in await answers.wait(_TIMEOUT)]


def _recorded(answer: Answer) -> SettleResult:
    if isinstance(answer, Missing):
        return Unknown(missing_error(answer, "writing a completion record"))
    if (answer.headers or {}).get("Status") == "503":
        return Unknown(ConnectionLost("nobody stores completion records now"))
    if b'"error"' not in answer.data:
        return _DONE
    error = msgspec.json.decode(answer.data).get("error")
    if error and error.get("err_code") != _WRONG_SEQUENCE:
        return Unknown(TransportError(f"a completion record was refused: {error['description']}"))
    return _DONE  # also when it was there before
