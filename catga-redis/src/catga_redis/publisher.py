"""Publishing: `PUBLISH`, `XADD`, and for what is stored once a script per type."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import msgspec

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
from catga_redis.names import seen_prefix, shard_channel, stream_key
from catga_redis.scripts import PUBLISH, parts
from catga_redis.session import Session
from catga_redis.storing import store_by
from catga_redis.wire import Line, begin_command, pack_command, with_last

__all__ = ["Publisher"]


class _Ways(msgspec.Struct, gc=False):
    """Which entries of a batch go which way, by their positions."""

    live: list[int] = []
    asked: list[int] = []
    stored: list[int] = []
    once: dict[tuple[str, str], list[int]] = {}
    later: list[int] = []
    letters: dict[Subject, list[int]] = {}


class Publisher:
    """Sends batches; each entry gets its own result."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._keys: dict[str, tuple[bytes, bytes]] = {}
        sharded = session.servers.sharded
        self._publish_command = _shard_publish_command if sharded else _publish_command

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        """Hand over or store each."""
        results: list[PublishResult | None] = [None] * len(batch)
        ways = self._ways(batch, results)
        if ways.live:
            await self._hand_over(batch, ways.live, results)
        if len(ways.live) < len(batch):
            await self._confirmed(batch, ways, results)
        return [result for result in results if result is not None]

    async def _confirmed(self, batch: Sequence[Outgoing], ways: _Ways, results: list[Any]) -> None:
        """Send side by side all that waits for an answer."""
        work = [
            *(
                self._ask(line, batch, part, results)
                for line, part in self._split_live(batch, ways.asked)
            ),
            *self._store_all(batch, ways.stored, results),
            *(
                self._store_letters(subject, batch, indexes, results)
                for subject, indexes in ways.letters.items()
            ),
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

    def _ways(self, batch: Sequence[Outgoing], results: list[PublishResult | None]) -> _Ways:
        ways = _Ways()
        limit = self._session.max_body
        for index, out in enumerate(batch):
            subject = out.subject
            if len(out.body) > limit:
                results[index] = Rejected(PayloadTooLarge(len(out.body), limit))
            elif out.not_before is not None:
                if can_wait(subject):
                    ways.later.append(index)
                else:
                    results[index] = CANNOT_WAIT
            elif subject.kind is Kind.DEAD:
                ways.letters.setdefault(subject, []).append(index)
            elif not subject.durable:
                (ways.live if out.reply_to is None else ways.asked).append(index)
            elif out.qos is not QualityOfService.EXACTLY_ONCE:
                ways.stored.append(index)
            elif out.attempts or out.replays:
                ways.later.append(index)  # due at once: the quick script carries only the body
            else:
                ways.once.setdefault((subject.namespace, subject.type), []).append(index)
        return ways

    def _split_live(
        self, batch: Sequence[Outgoing], indexes: Sequence[int]
    ) -> Sequence[tuple[Line, Sequence[int]]]:
        return self._session.servers.split(
            indexes, lambda index: shard_channel(batch[index].subject)
        )

    async def _hand_over(
        self, batch: Sequence[Outgoing], indexes: Sequence[int], results: list[Any]
    ) -> None:
        for line, part in self._split_live(batch, indexes):
            packed = b"".join([self._publish_command(batch[index]) for index in part])
            if line.post(packed, len(part)):
                for index in part:
                    results[index] = Receipt(batch[index].message_id)
                await line.room()
            else:
                lost = Rejected(ConnectionLost(f"not connected to {self._session.where}"), True)
                for index in part:
                    results[index] = lost

    async def _ask(
        self, line: Line, batch: Sequence[Outgoing], indexes: Sequence[int], results: list[Any]
    ) -> None:
        """Publish requests: the server says how many listen."""
        packed = b"".join(self._publish_command(batch[index]) for index in indexes)
        replies = await self._send(line, packed, indexes, results)
        for index, reply in zip(indexes, replies, strict=False):
            if isinstance(reply, Exception):
                results[index] = refused(reply, self._session.where)
            elif reply == 0:
                subject = batch[index].subject.text
                results[index] = Rejected(NoResponders(f"nobody listens on {subject}"))
            else:
                results[index] = Receipt(batch[index].message_id)

    def _store_all(
        self, batch: Sequence[Outgoing], indexes: Sequence[int], results: list[Any]
    ) -> list[Coroutine[Any, Any, None]]:
        parts = self._session.servers.split(
            indexes, lambda index: self._keys_of(batch[index].subject)[0]
        )
        return [self._store(line, batch, part, results) for line, part in parts]

    async def _store_letters(
        self,
        subject: Subject,
        batch: Sequence[Outgoing],
        indexes: Sequence[int],
        results: list[Any],
    ) -> None:
        try:
            await make_findable(self._session, subject)
        except CatgaError as error:
            for index in indexes:
                results[index] = Rejected(error, transient=True)
            return
        once = [i for i in indexes if batch[i].qos is QualityOfService.EXACTLY_ONCE]
        for part in parts(once, lambda index: len(batch[index].body)):
            await self._store_once(batch, part, results)
        rest = [index for index in indexes if index not in set(once)]
        await asyncio.gather(*self._store_all(batch, rest, results))

    async def _store(
        self, line: Line, batch: Sequence[Outgoing], indexes: Sequence[int], results: list[Any]
    ) -> None:
        packed = b"".join([self._append_command(batch[index]) for index in indexes])
        replies = await self._send(line, packed, indexes, results)
        for index, reply in zip(indexes, replies, strict=False):
            if isinstance(reply, Exception):
                results[index] = refused(reply, self._session.where)
            else:
                results[index] = Receipt(batch[index].message_id, reply.decode())

    async def _send(
        self, line: Line, packed: bytes, indexes: Sequence[int], results: list[Any]
    ) -> list[Any]:
        """Return the replies; none of them, with the results set, when the connection is lost."""
        try:
            return await line.request(packed, len(indexes))
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
            return with_last(begin_command(b"XADD", stream, b"*", b"b"), out.body)
        bound = (b"MAXLEN", b"~", most) if most else ()
        return pack_command((b"XADD", stream, *bound, b"*", b"b", out.body, *carried_fields(out)))

    def _keys_of(self, subject: Subject) -> tuple[bytes, bytes]:
        keys = self._keys.get(subject.text)
        if keys is None:
            keys = self._keys[subject.text] = (stream_key(subject), seen_prefix(subject))
        return keys


def _publish_command(out: Outgoing) -> bytes:
    return with_last(begin_command(b"PUBLISH", out.subject.text), out.body)


def _shard_publish_command(out: Outgoing) -> bytes:
    if out.subject.kind is Kind.REPLY:
        return _publish_command(out)  # to whoever asked, wherever it listens
    return with_last(begin_command(b"SPUBLISH", shard_channel(out.subject)), out.body)
