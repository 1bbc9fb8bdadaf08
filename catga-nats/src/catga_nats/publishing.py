"""Batches on their way out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeAlias

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
_Config: TypeAlias = dict[str, Any] | CatgaError
_NOBODY = ApiError(503, 0, "no stream takes this subject now")
_IN_PROCESS = ApiError(409, 10158, "its duplicate is not stored yet")
"""As newer servers say it; nats-server 2.10 says "duplicate" of the sequence 0."""


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
        results: list[PublishResult | None] = []
        acks = Batch(self._connection.mux) if any(out.subject.durable for out in batch) else None
        for start in range(0, len(batch), _YIELD_EVERY):
            part = batch[start : start + _YIELD_EVERY]
            self._in_a_row += len(part)
            if self._in_a_row >= _YIELD_EVERY:  # also over many small batches: nothing is sent
                self._in_a_row = 0  # before the loop turns
                if not await self._connection.client.room():
                    break
            results += await self._leave(part, acks)
        results += [_UNSENT] * (len(batch) - len(results))
        if acks is not None:
            answers = iter(await acks.wait(self._ack_timeout))
            for place, result in enumerate(results):
                if result is None:
                    results[place] = _stored(batch[place], next(answers))
        return results  # type: ignore[return-value]  # each has its own by now

    async def _leave(
        self, part: Sequence[Outgoing], acks: Batch | None
    ) -> list[PublishResult | None]:
        """Hand over a part in one piece; None where a confirmation will tell the result."""
        client, configs = self._connection.client, await self._configs(part)
        limit, asked = client.max_payload, 0 if acks is None else len(acks.answers)
        found: list[PublishResult | None] = []
        frames: list[bytes] = []
        for out in part:
            subject, headers = out.subject.text, b""
            if out.subject.durable:
                try:
                    subject, headers = self._place(out, configs)
                except CatgaError as error:
                    found.append(Rejected(error, transient=isinstance(error, ConnectionLost)))
                    continue
            # More than the limit, headers included, and the server ends the connection.
            size = len(headers) + len(out.body)
            if size > limit:
                found.append(Rejected(PayloadTooLarge(size, limit)))
            elif headers and acks is not None:
                frames.append(frame(subject, out.body, acks.expect(subject), headers))
                found.append(None)
            else:
                reply = "" if out.reply_to is None else out.reply_to.text
                frames.append(frame(subject, out.body, reply))
                found.append(Receipt(out.message_id))
        if frames and not await client.write(frames):
            if acks is not None:
                acks.withdraw(asked)
            return [each if isinstance(each, Rejected) else _UNSENT for each in found]
        return found

    async def _configs(self, part: Sequence[Outgoing]) -> dict[str, _Config]:
        """Return how the streams are that keep the delayed ones, by namespace, or why that cannot
        be known."""
        configs: dict[str, _Config] = {}
        for namespace in {out.subject.namespace for out in part if out.not_before is not None}:
            try:
                configs[namespace] = await self._log_config(namespace)
            except CatgaError as error:
                configs[namespace] = error
        return configs

    def _place(self, outgoing: Outgoing, configs: Mapping[str, _Config]) -> tuple[str, bytes]:
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
        if when is not None and when > (now := self._connection.mux.clock.now()):
            config = configs[outgoing.subject.namespace]
            subject = _delayed(outgoing, when, when - now, more, config)
        return subject, header_block(stored_id(outgoing), more)


def _delayed(
    outgoing: Outgoing, when: datetime, wait: timedelta, headers: dict[str, str], config: _Config
) -> str:
    """Return the subject on which it waits; its headers say for what."""
    if isinstance(config, CatgaError):
        raise config
    kept = config.get("max_age", 0)
    if kept and wait > timedelta(seconds=kept / 1e9):
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
    if ack.error is None and ack.seq:
        return Receipt(outgoing.message_id, str(ack.seq), ack.duplicate)
    error = ack.error or _IN_PROCESS
    if first := stored_before(error):
        return Receipt(outgoing.message_id, first, duplicate=True)
    return publish_failure(outgoing.subject.text, error)
