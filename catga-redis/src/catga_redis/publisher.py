"""Publishing: `PUBLISH`, `XADD`, and for what is stored once a script per type."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import ResponseError

from catga.errors import (
    CatgaError,
    ConnectionLost,
    NoResponders,
    PayloadTooLarge,
)
from catga.spi import (
    Kind,
    Outgoing,
    PublishResult,
    QualityOfService,
    Receipt,
    Rejected,
    Subject,
)
from catga_redis.errors import REPLY_ERRORS, refused, unconfirmed
from catga_redis.names import seen_prefix, stream_key
from catga_redis.scripts import BATCH, PUBLISH
from catga_redis.session import Session
from catga_redis.wire import pack_command

__all__ = ["Publisher"]

_SCRIPT_BYTES = 1 << 22
"""At most about so many bytes of bodies in one script."""


class Publisher:
    """Sends batches; each entry gets its own result."""

    def __init__(self, session: Session, limit: Callable[[], int]) -> None:
        self._session = session
        self._limit = limit
        self._keys: dict[Subject, tuple[bytes, bytes]] = {}

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        """Hand over or store each."""
        results: list[PublishResult | None] = [None] * len(batch)
        limit = self._limit()
        live: list[int] = []
        asked: list[int] = []
        stored: list[int] = []
        once: dict[tuple[str, str], list[int]] = {}
        for index, out in enumerate(batch):
            subject = out.subject
            if len(out.body) > limit:
                results[index] = Rejected(PayloadTooLarge(len(out.body), limit))
            elif not subject.durable:
                (live if out.reply_to is None else asked).append(index)
            elif out.qos is QualityOfService.EXACTLY_ONCE:
                once.setdefault((subject.namespace, subject.type), []).append(index)
            else:
                stored.append(index)
        if live:
            self._hand_over(batch, live, results)
            await self._session.commands.room()
        work = [
            *([self._ask(batch, asked, results)] if asked else ()),
            *([self._store(batch, stored, results)] if stored else ()),
            *(
                self._store_once(batch, part, results)
                for indexes in once.values()
                for part in _parts(batch, indexes)
            ),
        ]
        if len(work) == 1:
            await work[0]
        elif work:
            await asyncio.gather(*work)
        return [result for result in results if result is not None]

    def _hand_over(
        self, batch: Sequence[Outgoing], indexes: Sequence[int], results: list[Any]
    ) -> None:
        packed = b"".join(_publish_command(batch[index]) for index in indexes)
        if self._session.commands.post(packed, len(indexes)):
            for index in indexes:
                results[index] = Receipt(batch[index].message_id)
        else:
            lost = Rejected(ConnectionLost(f"not connected to {self._session.where}"), True)
            for index in indexes:
                results[index] = lost

    async def _ask(
        self, batch: Sequence[Outgoing], indexes: Sequence[int], results: list[Any]
    ) -> None:
        """Publish requests: the server says how many listen."""
        packed = b"".join(_publish_command(batch[index]) for index in indexes)
        replies = await self._send(packed, indexes, results)
        for index, reply in zip(indexes, replies, strict=False):
            if isinstance(reply, Exception):
                results[index] = refused(reply, self._session.where)
            elif reply == 0:
                subject = batch[index].subject.text
                results[index] = Rejected(NoResponders(f"nobody listens on {subject}"))
            else:
                results[index] = Receipt(batch[index].message_id)

    async def _store(
        self, batch: Sequence[Outgoing], indexes: Sequence[int], results: list[Any]
    ) -> None:
        packed = b"".join(self._append_command(batch[index]) for index in indexes)
        replies = await self._send(packed, indexes, results)
        for index, reply in zip(indexes, replies, strict=False):
            if isinstance(reply, Exception):
                results[index] = refused(reply, self._session.where)
            else:
                results[index] = Receipt(batch[index].message_id, reply.decode())

    async def _send(self, packed: bytes, indexes: Sequence[int], results: list[Any]) -> list[Any]:
        """Return the replies; none of them, with the results set, when the connection is lost."""
        try:
            return await self._session.commands.request(packed, len(indexes))
        except CatgaError as error:
            outcome = unconfirmed(error)
            for index in indexes:
                results[index] = outcome
            return []

    async def _store_once(
        self, batch: Sequence[Outgoing], indexes: Sequence[int], results: list[Any]
    ) -> None:
        keys: list[bytes] = []
        values: list[Any] = [self._session.window_ms, self._max_length(batch[indexes[0]].subject)]
        for index in indexes:
            out = batch[index]
            stream, seen = self._keys_of(out.subject)
            keys += (stream, seen + out.message_id.encode())
            values.append(out.body)
        try:
            replies = await PUBLISH.run(self._session.commands, keys, values)
        except (CatgaError, *REPLY_ERRORS) as error:
            outcome = (
                refused(error, self._session.where)
                if isinstance(error, REPLY_ERRORS)
                else unconfirmed(error)
            )
            for index in indexes:
                results[index] = outcome
            return
        for index, reply in zip(indexes, replies, strict=True):
            word = reply.decode(errors="backslashreplace")
            if word[0] == "!":
                results[index] = refused(ResponseError(word[1:]), self._session.where)
            else:
                results[index] = Receipt(batch[index].message_id, word[1:], word[0] == "=")

    def _append_command(self, out: Outgoing) -> bytes:
        stream = self._keys_of(out.subject)[0]
        if most := self._max_length(out.subject):
            return pack_command((b"XADD", stream, b"MAXLEN", b"~", most, b"*", b"b", out.body))
        return pack_command((b"XADD", stream, b"*", b"b", out.body))

    def _keys_of(self, subject: Subject) -> tuple[bytes, bytes]:
        keys = self._keys.get(subject)
        if keys is None:
            keys = self._keys[subject] = (stream_key(subject), seen_prefix(subject))
        return keys

    def _max_length(self, subject: Subject) -> int | bytes:
        if subject.kind is Kind.DEAD or not self._session.max_length:
            return b""
        return self._session.max_length.get((subject.namespace, subject.type), b"")


def _publish_command(out: Outgoing) -> bytes:
    return pack_command((b"PUBLISH", out.subject.text, out.body))


def _parts(batch: Sequence[Outgoing], indexes: Sequence[int]) -> list[list[int]]:
    """Cut what goes into one script by number and by size."""
    parts: list[list[int]] = [[]]
    size = 0
    for index in indexes:
        length = len(batch[index].body)
        if parts[-1] and (len(parts[-1]) == BATCH or size + length > _SCRIPT_BYTES):
            parts.append([])
            size = 0
        parts[-1].append(index)
        size += length
    return parts
