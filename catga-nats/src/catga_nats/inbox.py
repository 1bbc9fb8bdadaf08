"""Completion records in a JetStream KV bucket, one key per (group, type, message id)."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from catga.errors import ConnectionLost, TransportError
from catga.spi import Completion, Done, InboxStore, Record, SettleResult, Unknown
from catga_nats import names
from catga_nats.connection import Connection
from catga_nats.errors import missing_error
from catga_nats.mux import Answer, Ask, Batch, Missing

__all__ = ["KvInbox", "read_last", "record_subject", "token", "tx_record_subject"]

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_TIMEOUT = 5.0
_DONE = Done()
_FIRST = b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: 0\r\n\r\n"
_NO_MESSAGE = 10037
_WRONG_SEQUENCE = 10071
"""Error codes. Source: nats-server 2.15, `server/errors.json`."""


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


def read_last(stream: str, subject: str, config: Mapping[str, Any]) -> Ask:
    """Return the request for the last message of a subject.

    With one copy any answer is the truth; with several only the leader surely knows, and a direct
    get may be answered by a follower that is behind.
    """
    if config.get("num_replicas", 1) == 1 and config.get("allow_direct"):
        return f"$JS.API.DIRECT.GET.{stream}.{subject}", b""
    return f"$JS.API.STREAM.MSG.GET.{stream}", msgspec.json.encode({"last_by_subj": subject})


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
        asks = [self._lookup(key) for key in keys]
        also = [place for place, key in enumerate(keys) if self._has_transactions(key.namespace)]
        asks += [self._lookup_tx(keys[place]) for place in also]
        answers = await self._connection.mux.ask(asks, _TIMEOUT)
        found = [_found(answer) for answer in answers]
        for place, body in zip(also, found[len(keys) :], strict=True):
            if found[place] is None:
                found[place] = body
        return found[: len(keys)]

    def _lookup(self, key: Completion) -> Ask:
        stream = names.inbox_stream(key.namespace)
        return read_last(stream, record_subject(key), self._streams.get(stream, {}))

    def _has_transactions(self, namespace: str) -> bool:
        return names.tx_stream(namespace) in self._streams

    def _lookup_tx(self, key: Completion) -> Ask:
        stream = names.tx_stream(key.namespace)
        return read_last(stream, tx_record_subject(key), self._streams[stream])

    async def record(self, records: Sequence[Record]) -> list[SettleResult]:
        """Write each, all in one round trip; what is there stays."""
        answers = Batch(self._connection.mux)
        await answers.send(
            [(record_subject(each.key), each.response or b"") for each in records], _FIRST
        )
        return [_recorded(answer) for answer in await answers.wait(_TIMEOUT)]


def _found(answer: Answer) -> bytes | None:
    """Return the body of a record: empty, or a response. None: there is no record."""
    if isinstance(answer, Missing):
        raise missing_error(answer, "looking up a completion record")
    status = (answer.headers or {}).get("Status")
    if status == "404":
        return None
    if status is not None:
        raise ConnectionLost(f"the completion records cannot be read now: status {status}")
    if answer.headers and "Nats-Sequence" in answer.headers:
        return bytes(answer.data)  # a direct get hands the record itself out
    reply = msgspec.json.decode(answer.data)
    error = reply.get("error")
    if error and error.get("err_code") != _NO_MESSAGE:
        raise TransportError(f"the completion records cannot be read: {error.get('description')}")
    return None if error else base64.b64decode(reply["message"].get("data", ""))


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
