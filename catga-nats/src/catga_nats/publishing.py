"""Batches on their way out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from catga.errors import (
    CapabilityError,
    CatgaError,
    ConnectionLost,
    PayloadTooLarge,
    PublishRejected,
)
from catga.spi import Outgoing, PublishResult, Receipt, Rejected
from catga_nats.connection import Connection
from catga_nats.errors import ApiError, publish_failure, publish_missing
from catga_nats.headers import frame_bytes, stored_headers
from catga_nats.mux import Answer, Batch, Missing
from catga_nats.once import conditional, is_once, stored_before
from catga_nats.schedules import held_back, scheduled

__all__ = ["Publisher"]

_YIELD_EVERY = 256
_UNSENT = Rejected(ConnectionLost("not connected: nothing was sent"), transient=True)
_NEVER_LATER = Rejected(
    CapabilityError("a delayed message leaves its subject: with dedupe_window=none there are none")
)
_NOBODY = ApiError(503, 0, "no stream takes this subject now")


class _PubAck(msgspec.Struct):
    seq: int = 0
    duplicate: bool = False
    error: ApiError | None = None


_decode_ack = msgspec.json.Decoder(_PubAck).decode


class Publisher:
    """Hands over QoS 0, stores QoS 1 and 2: one future for the confirmations of a batch."""

    def __init__(
        self,
        connection: Connection,
        ack_timeout: float,
        log_config: Callable[[str], Awaitable[dict[str, Any]]],
    ) -> None:
        self._connection = connection
        self._log_config = log_config
        self._ack_timeout = ack_timeout
        self._in_a_row = 0
        self.for_ever = False
        """Whether what is stored once has a subject for each id."""

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        """Return the results in the order of the batch."""
        if len(batch) <= _YIELD_EVERY and not any(out.subject.durable for out in batch):
            return await self._hand_over_all(batch)
        client = self._connection.client
        limit = client.max_payload
        results: list[PublishResult] = []
        acks = Batch(self._connection.mux)
        stored: list[int] = []
        for place, outgoing in enumerate(batch):
            self._in_a_row += 1
            if self._in_a_row >= _YIELD_EVERY:  # also over many small batches: nothing is sent
                self._in_a_row = 0  # before the loop turns
                if not await client.room():
                    break
            results.append(_UNSENT)
            if outgoing.subject.durable:
                refused = await self._store(outgoing, acks, limit)
                if refused is None:
                    stored.append(place)
            else:
                refused = await self._hand_over(outgoing, limit)
            if refused is not None:
                results[-1] = refused
        results += [_UNSENT] * (len(batch) - len(results))
        answers = await acks.wait(self._ack_timeout)
        for place, answer in zip(stored, answers, strict=True):
            results[place] = _stored(batch[place], answer)
        return results

    async def _hand_over_all(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        """Hand over at once what is not stored: all of it, or without a connection none."""
        client = self._connection.client
        self._in_a_row += len(batch)
        if self._in_a_row >= _YIELD_EVERY:
            self._in_a_row = 0
            if not await client.room():
                return [_UNSENT] * len(batch)
        limit = client.max_payload
        leaving = [
            (out.subject.text, out.body, "" if out.reply_to is None else out.reply_to.text)
            for out in batch
            if len(out.body) <= limit
        ]
        if leaving and not await client.send_all(leaving):
            handed_over: Callable[[str], PublishResult] = _unsent
        else:
            handed_over = Receipt
        return [
            handed_over(out.message_id)
            if (size := len(out.body)) <= limit
            else Rejected(PayloadTooLarge(size, limit))
            for out in batch
        ]

    async def _hand_over(self, outgoing: Outgoing, limit: int) -> PublishResult:
        if len(outgoing.body) > limit:
            return Rejected(PayloadTooLarge(len(outgoing.body), limit))
        reply = outgoing.reply_to.text if outgoing.reply_to is not None else ""
        if not await self._connection.client.send(outgoing.subject.text, outgoing.body, reply):
            return _UNSENT
        return Receipt(outgoing.message_id)

    async def _store(self, outgoing: Outgoing, acks: Batch, limit: int) -> PublishResult | None:
        """Send one to its stream; None when its confirmation is under way."""
        subject = outgoing.subject.text
        headers = stored_headers(outgoing)
        if self.for_ever and is_once(outgoing):
            if outgoing.not_before is not None:
                return _NEVER_LATER
            subject = conditional(outgoing, headers)
        when = outgoing.not_before
        if when is not None and when > self._connection.mux.clock.now():
            try:
                subject = await self._delayed(outgoing, when, headers)
            except CatgaError as error:
                return Rejected(error, transient=isinstance(error, ConnectionLost))
        # More than the limit, headers included, and the server ends the connection.
        size = len(outgoing.body) + frame_bytes(headers)
        if size > limit:
            return Rejected(PayloadTooLarge(size, limit))
        client = self._connection.client
        if not client.is_connected:
            return _UNSENT
        await client.send(subject, outgoing.body, acks.expect(subject), headers)
        return None

    async def _delayed(self, outgoing: Outgoing, when: datetime, headers: dict[str, str]) -> str:
        """Return the subject on which it waits; its headers say for what."""
        config = await self._log_config(outgoing.subject.namespace)
        kept = config.get("max_age", 0)
        if kept and when > self._connection.mux.clock.now() + timedelta(seconds=kept / 1e9):
            raise PublishRejected(
                f"{outgoing.subject}: not stored: it would be due after the max_age of "
                f"{kept / 1e9:g}s, and be removed before"
            )
        way = scheduled if config.get("allow_msg_schedules") else held_back
        return way(outgoing, when, headers)


def _unsent(_message_id: str) -> Rejected:
    return _UNSENT


def _stored(outgoing: Outgoing, answer: Answer) -> PublishResult:
    if isinstance(answer, Missing):
        return publish_missing(outgoing.subject.text, answer)
    if not answer.data:  # a status: nobody responds
        return publish_failure(outgoing.subject.text, _NOBODY)
    ack = _decode_ack(answer.data)
    if ack.error is not None and (first := stored_before(ack.error)):
        return Receipt(outgoing.message_id, first, duplicate=True)
    if ack.error is not None:
        return publish_failure(outgoing.subject.text, ack.error)
    return Receipt(outgoing.message_id, str(ack.seq), ack.duplicate)
