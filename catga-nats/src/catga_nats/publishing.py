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
from catga_nats.client import frame
from catga_nats.connection import Connection
from catga_nats.errors import ApiError, publish_failure, publish_missing
from catga_nats.headers import header_block, more_headers, stored_id
from catga_nats.mux import Answer, Batch, Missing
from catga_nats.once import conditional, is_once, stored_before
from catga_nats.schedules import held_back, scheduled

__all__ = ["Publisher"]

_YIELD_EVERY = 256
_UNSENT = Rejected(ConnectionLost("not connected: nothing was sent"), transient=True)
_NEVER_LATER = "a delayed message leaves its subject: with dedupe_window=none there are none"
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
        client = self._connection.client
        results: list[PublishResult | None] = []
        acks = Batch(self._connection.mux)
        stored: list[int] = []
        for start in range(0, len(batch), _YIELD_EVERY):
            part = batch[start : start + _YIELD_EVERY]
            self._in_a_row += len(part)
            if self._in_a_row >= _YIELD_EVERY:  # also over many small batches: nothing is sent
                self._in_a_row = 0  # before the loop turns
                if not await client.room():
                    break
            asked = len(stored)
            found, frames = await self._frames(part, acks)
            if frames and not await client.write(frames):
                acks.unsent(asked)
                results += [each if isinstance(each, Rejected) else _UNSENT for each in found]
                break
            if acks.answers:
                stored += [place for place, each in enumerate(found, start) if each is None]
            results += found
        results += [_UNSENT] * (len(batch) - len(results))
        if stored:
            answers = await acks.wait(self._ack_timeout)
            for place, answer in zip(stored, answers, strict=False):  # behind them: what never left
                results[place] = _stored(batch[place], answer)
        return results  # type: ignore[return-value]  # each has its result by now

    async def _frames(
        self, part: Sequence[Outgoing], acks: Batch
    ) -> tuple[list[PublishResult | None], list[bytes]]:
        """Return what is to be written, and the result of each when it is; None where a
        confirmation tells."""
        limit = self._connection.client.max_payload
        found: list[PublishResult | None] = []
        frames: list[bytes] = []
        for out in part:
            result: PublishResult | None = None
            subject, headers, body = out.subject.text, b"", out.body
            if out.subject.durable:
                try:
                    subject, headers = await self._place(out)
                except CatgaError as error:
                    found.append(Rejected(error, transient=isinstance(error, ConnectionLost)))
                    continue
            # More than the limit, headers included, and the server ends the connection.
            size = len(headers) + len(body)
            if size > limit:
                found.append(Rejected(PayloadTooLarge(size, limit)))
                continue
            if headers:
                reply = acks.expect(subject)
            else:
                reply = "" if out.reply_to is None else out.reply_to.text
                result = Receipt(out.message_id)
            frames.append(frame(subject, body, reply, headers))
            found.append(result)
        return found, frames

    async def _place(self, outgoing: Outgoing) -> tuple[str, bytes]:
        """Return the subject on which a message is stored, and its headers.

        Raises `CatgaError` when it cannot be stored.
        """
        subject = outgoing.subject.text
        more = more_headers(outgoing)
        when = outgoing.not_before
        if self.for_ever and is_once(outgoing):
            if when is not None:
                raise CapabilityError(_NEVER_LATER)
            subject = conditional(outgoing, more)
        if when is not None and when > self._connection.mux.clock.now():
            subject = await self._delayed(outgoing, when, more)
        return subject, header_block(stored_id(outgoing), more)

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
