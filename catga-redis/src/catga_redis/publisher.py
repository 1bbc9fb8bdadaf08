"""Publishing: `PUBLISH`, `XADD`, and for what is stored once a script per type."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import attrs

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
from catga_redis.deadletters import make_findable
from catga_redis.entries import carried_fields
from catga_redis.errors import refused, unconfirmed
from catga_redis.later import CANNOT_WAIT, can_wait, store_later
from catga_redis.names import seen_prefix, stream_key
from catga_redis.scripts import PUBLISH, parts
from catga_redis.session import Session
from catga_redis.storing import store_by
from catga_redis.wire import pack_command

__all__ = ["Publisher"]


@attrs.define
class _Ways:
    """Which entries of a batch go which way, by their positions."""

    live: list[int] = attrs.field(factory=list)
    asked: list[int] = attrs.field(factory=list)
    stored: list[int] = attrs.field(factory=list)
    once: dict[tuple[str, str, bool], list[int]] = attrs.field(factory=dict)
    later: list[int] = attrs.field(factory=list)


class Publisher:
    """Sends batches; each entry gets its own result."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._keys: dict[Subject, tuple[bytes, bytes]] = {}

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        """Hand over or store each."""
        results: list[PublishResult | None] = [None] * len(batch)
        ways = self._ways(batch, results)
        if ways.live:
            self._hand_over(batch, ways.live, results)
            await self._session.commands.room()
        work = [
            *([self._ask(batch, ways.asked, results)] if ways.asked else ()),
            *([self._store(batch, ways.stored, results)] if ways.stored else ()),
            *([store_later(self._session, batch, ways.later, results)] if ways.later else ()),
            *(
                self._store_once(batch, part, results)
                for indexes in ways.once.values()
                for part in parts(indexes, lambda index: len(batch[index].body))
            ),
        ]
        if len(work) == 1:
            await work[0]
        elif work:
            await asyncio.gather(*work)
        return [result for result in results if result is not None]

    def _ways(self, batch: Sequence[Outgoing], results: list[PublishResult | None]) -> _Ways:
        ways = _Ways()
        limit = self._session.max_body
        for index, out in enumerate(batch):
            subject = out.subject
            if subject.kind is Kind.DEAD:
                make_findable(self._session, subject)
            if len(out.body) > limit:
                results[index] = Rejected(PayloadTooLarge(len(out.body), limit))
            elif out.not_before is not None:
                if can_wait(subject):
                    ways.later.append(index)
                else:
                    results[index] = CANNOT_WAIT
            elif not subject.durable:
                (ways.live if out.reply_to is None else ways.asked).append(index)
            elif out.qos is not QualityOfService.EXACTLY_ONCE:
                ways.stored.append(index)
            elif out.attempts or out.replays:
                ways.later.append(index)  # due at once: the quick script carries only the body
            else:
                # One script is bounded as a whole, and dead letters never are.
                dead = subject.kind is Kind.DEAD
                ways.once.setdefault((subject.namespace, subject.type, dead), []).append(index)
        return ways

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
        values: list[Any] = [
            self._session.window_of(batch[indexes[0]].subject),
            self._session.length_of(batch[indexes[0]].subject),
        ]
        for index in indexes:
            out = batch[index]
            stream, seen = self._keys_of(out.subject)
            keys += (stream, seen + out.message_id.encode())
            values.append(out.body)
        outs = [batch[index] for index in indexes]
        found = await store_by(PUBLISH, self._session, keys, values, outs)
        for index, result in zip(indexes, found, strict=True):
            results[index] = result

    def _append_command(self, out: Outgoing) -> bytes:
        stream = self._keys_of(out.subject)[0]
        most = self._session.length_of(out.subject)
        if not (most or out.attempts or out.replays):  # almost every message
            return pack_command((b"XADD", stream, b"*", b"b", out.body))
        bound = (b"MAXLEN", b"~", most) if most else ()
        return pack_command((b"XADD", stream, *bound, b"*", b"b", out.body, *carried_fields(out)))

    def _keys_of(self, subject: Subject) -> tuple[bytes, bytes]:
        keys = self._keys.get(subject)
        if keys is None:
            keys = self._keys[subject] = (stream_key(subject), seen_prefix(subject))
        return keys


def _publish_command(out: Outgoing) -> bytes:
    return pack_command((b"PUBLISH", out.subject.text, out.body))
