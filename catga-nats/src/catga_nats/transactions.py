"""Transactions: a record and its effects in one atomic batch of one stream (nats-server >= 2.12).

Each message of a batch names the sequence that its subject must have, 0 for none; the server
stores all or none. The record is the fence. Source: NATS ADR-50, "Batch publishing".
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from catga.errors import ConnectionLost, TransportError
from catga.spi import (
    Commit,
    Completion,
    Conflict,
    Done,
    EffectKey,
    Effects,
    EffectStore,
    Found,
    SettleResult,
    Unknown,
)
from catga_nats import names
from catga_nats.connection import Connection
from catga_nats.errors import WRONG_SEQUENCE, missing_error
from catga_nats.headers import direct_sequence
from catga_nats.inbox import KvInbox, token, tx_record_subject
from catga_nats.lookups import read_last
from catga_nats.mux import Answer, Batch, Missing
from catga_nats.outbox import in_batch

__all__ = ["ATOMIC_SINCE", "TxStore", "is_atomic"]

ATOMIC_SINCE = (2, 12)
_TIMEOUT = 5.0
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_NO_MESSAGE = 10037
_GONE = {"KV-Operation": "DEL"}

Message: TypeAlias = tuple[str, bytes, dict[str, str]]


def is_atomic(version: tuple[int, int, int]) -> bool:
    """Say whether a server of this version stores several messages in one step."""
    return version[:2] >= ATOMIC_SINCE


def effect_subject(key: EffectKey) -> str:
    """Return the subject of one key."""
    return f"{key.namespace}.tx.e.{key.group}.{key.type}.{token(key.name)}"


class TxStore(EffectStore):
    """One message per key; its sequence is the version."""

    def __init__(
        self, connection: Connection, streams: dict[str, dict[str, Any]], inbox: KvInbox
    ) -> None:
        self._connection = connection
        self._streams = streams
        self._inbox = inbox

    async def read(self, keys: Sequence[EffectKey]) -> list[Found]:
        """Read each, all in one round trip."""
        asks = []
        for key in keys:
            stream = names.tx_stream(key.namespace)
            asks.append(read_last(stream, effect_subject(key), self._streams.get(stream, {})))
        answers = await self._connection.mux.ask(asks, _TIMEOUT)
        return [_effect(answer) for answer in answers]

    async def commit(self, batch: Sequence[Commit]) -> list[SettleResult]:
        """Store record and effects of each, all in one round trip; acknowledges nothing."""
        answers = Batch(self._connection.mux)
        for commit in batch:
            await self._send(self._messages(commit), answers)
        outcomes = [_stored(answer) for answer in await answers.wait(_TIMEOUT)]
        unclear = [place for place, outcome in enumerate(outcomes) if outcome == Conflict()]
        if unclear:
            keys = [batch[place].record.key for place in unclear]
            for place, outcome in zip(unclear, await self._who_was_first(keys), strict=True):
                outcomes[place] = outcome
        return outcomes

    async def _who_was_first(self, keys: Sequence[Completion]) -> list[SettleResult]:
        """A sequence was not the expected one: the record's, or that of something read?"""
        try:
            recorded = await self._inbox.completed(keys)
        except TransportError as error:
            return [Unknown(error)] * len(keys)
        return [Done(before=True) if there else Conflict() for there in recorded]

    def _messages(self, commit: Commit) -> list[Message]:
        key = commit.record.key
        headers = {_EXPECTED: "0"}
        config = self._streams.get(names.inbox_stream(key.namespace), {})
        if age := int(config.get("max_age", 0)):
            headers["Nats-TTL"] = str(max(1, age // 10**9))
        record = (tx_record_subject(key), commit.record.response or b"", headers)
        effects = Effects({}, {}) if commit.effects is None else commit.effects
        # What was only read is written as it was: only what is written can be compared.
        values = {key: found.value for key, found in effects.reads.items()} | dict(effects.writes)
        messages = [record]
        for name, value in values.items():
            headers = {} if value is not None else dict(_GONE)
            if name in effects.reads:
                headers[_EXPECTED] = effects.reads[name].version or "0"
            messages.append((effect_subject(name), value or b"", headers))
        return [*messages, *map(in_batch, effects.outgoing)]

    async def _send(self, messages: Sequence[Message], answers: Batch) -> None:
        """Hand over one batch; only its last message is answered, for all of them."""
        client, number = self._connection.client, secrets.token_hex(16)
        sent = True
        for place, (subject, body, headers) in enumerate(messages, 1):
            headers |= {"Nats-Batch-Id": number, "Nats-Batch-Sequence": str(place)}
            reply = ""
            if place == len(messages):
                headers["Nats-Batch-Commit"] = "1"
                reply = answers.expect(subject)
            sent = sent and await client.send(subject, body, reply, headers)
        if not sent:
            answers.unsent()
        await client.room()


class _PubAck(msgspec.Struct):
    error: dict[str, Any] | None = None
    batch: str = ""


_decode_ack = msgspec.json.Decoder(_PubAck).decode


def _stored(answer: Answer) -> SettleResult:
    if isinstance(answer, Missing):
        return Unknown(missing_error(answer, "committing a transaction"))
    if (answer.headers or {}).get("Status") == "503":
        return Unknown(ConnectionLost("nobody stores transactions now"))
    ack = _decode_ack(answer.data)
    if ack.error is None:
        if not ack.batch:
            return Unknown(TransportError("the server stored a transaction message by message"))
        return Done()
    if ack.error.get("err_code") in WRONG_SEQUENCE:
        return Conflict()
    return Unknown(TransportError(f"a transaction was refused: {ack.error.get('description')}"))


def _effect(answer: Answer) -> Found:
    if isinstance(answer, Missing):
        raise missing_error(answer, "reading a key of a transaction")
    headers = answer.headers or {}
    if version := direct_sequence(answer.head):
        gone = headers.get("KV-Operation") == "DEL"
        return Found(None if gone else bytes(answer.data), version)
    status = headers.get("Status")
    if status == "404":
        return Found(None, "")
    if status is not None:
        raise ConnectionLost(f"the keys of transactions cannot be read now: status {status}")
    reply = msgspec.json.decode(answer.data)
    error = reply.get("error")
    if error and error.get("err_code") == _NO_MESSAGE:
        return Found(None, "")
    if error:
        raise TransportError(f"a key of a transaction cannot be read: {error.get('description')}")
    message = reply["message"]
    gone = b"KV-Operation: DEL" in base64.b64decode(message.get("hdrs", ""))
    value = base64.b64decode(message.get("data", ""))
    return Found(None if gone else value, str(message["seq"]))
