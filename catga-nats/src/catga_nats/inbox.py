"""Completion records in a JetStream KV bucket, one key per (group, type, message id)."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from catga.errors import ConnectionLost, TransportError
from catga.spi import Completion, Done, InboxStore, SettleResult, Unknown
from catga_nats import names
from catga_nats.connection import Connection
from catga_nats.errors import missing_error
from catga_nats.mux import Answer, Ask, Missing

__all__ = ["KvInbox", "record_subject"]

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_TIMEOUT = 5.0


def record_subject(key: Completion) -> str:
    """Return the subject of the record; ids that cannot stand in a subject are written in base64,
    behind a `=`, which no plain one holds."""
    token = key.message_id
    if not _PLAIN.fullmatch(token):
        token = "=" + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    return f"$KV.{names.bucket(key.namespace)}.{key.group}.{key.type}.{token}"


class KvInbox(InboxStore):
    """Shared by all members of a group; the bucket's max age is D."""

    def __init__(self, connection: Connection, streams: dict[str, dict[str, Any]]) -> None:
        self._connection = connection
        self._streams = streams

    async def completed(self, keys: Sequence[Completion]) -> list[bool]:
        """Look each up, all in one round trip."""
        asks = [self._lookup(key) for key in keys]
        answers = await self._connection.mux.ask(asks, _TIMEOUT)
        return [_found(answer) for answer in answers]

    def _lookup(self, key: Completion) -> Ask:
        """With one copy any answer is the truth; with several only the leader surely knows, and
        a direct get may be answered by a follower that is behind."""
        stream, subject = names.inbox_stream(key.namespace), record_subject(key)
        config = self._streams.get(stream, {})
        if config.get("num_replicas", 1) == 1 and config.get("allow_direct"):
            return f"$JS.API.DIRECT.GET.{stream}.{subject}", b""
        return f"$JS.API.STREAM.MSG.GET.{stream}", msgspec.json.encode({"last_by_subj": subject})

    async def record(self, keys: Sequence[Completion]) -> list[SettleResult]:
        """Write each, all in one round trip."""
        answers = await self._connection.mux.ask(
            [(record_subject(key), b"") for key in keys], _TIMEOUT
        )
        return [_recorded(answer) for answer in answers]


def _found(answer: Answer) -> bool:
    if isinstance(answer, Missing):
        raise missing_error(answer, "looking up a completion record")
    status = (answer.headers or {}).get("Status")
    if status == "404":
        return False
    if status is not None:
        raise ConnectionLost(f"the completion records cannot be read now: status {status}")
    if answer.headers and "Nats-Sequence" in answer.headers:
        return True  # a direct get hands the record itself out
    error = msgspec.json.decode(answer.data).get("error")
    if error and error.get("err_code") != 10037:  # no message found
        raise TransportError(f"the completion records cannot be read: {error.get('description')}")
    return not error


def _recorded(answer: Answer) -> SettleResult:
    if isinstance(answer, Missing):
        return Unknown(missing_error(answer, "writing a completion record"))
    if (answer.headers or {}).get("Status") == "503":
        return Unknown(ConnectionLost("nobody stores completion records now"))
    error = msgspec.json.decode(answer.data).get("error")
    if error:
        return Unknown(TransportError(f"a completion record was refused: {error['description']}"))
    return Done()
