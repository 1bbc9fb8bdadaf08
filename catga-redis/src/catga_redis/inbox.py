"""Completion records: one key each, beside the streams of its type."""

from __future__ import annotations

from collections.abc import Sequence

from catga.errors import CatgaError
from catga.spi import Completion, Done, InboxStore, Record, SettleResult, Unknown
from catga_redis.errors import REPLY_ERRORS
from catga_redis.names import done_key
from catga_redis.scripts import KNOWN, parts
from catga_redis.session import Session

__all__ = ["RedisInbox", "record_value"]


class RedisInbox(InboxStore):
    """Records with an expiry of D, on the server of the messages."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def completed(self, keys: Sequence[Completion]) -> list[bool]:
        """Look up to 256 of a type up in one command with one reply."""
        known = [False] * len(keys)
        types: dict[tuple[str, str], list[int]] = {}
        for at, key in enumerate(keys):
            types.setdefault((key.namespace, key.type), []).append(at)
        try:
            for places in types.values():
                for part in parts(places, lambda _: 0):
                    names = [done_key(keys[at]) for at in part]
                    found = await KNOWN.run(self._session.line(names[0]), names, ())
                    for at, there in zip(part, found, strict=True):
                        known[at] = bool(there)
        except REPLY_ERRORS as error:
            raise self._session.failure(error) from error
        return known

    async def responses(self, keys: Sequence[Completion]) -> list[bytes | None]:
        """Read all in one round trip."""
        if not keys:
            return []
        replies = await self._session.servers.ask([(b"GET", done_key(key)) for key in keys])
        for reply in replies:
            if isinstance(reply, Exception):
                raise self._session.failure(reply) from reply
        return [reply[1:] if reply and len(reply) > 1 else None for reply in replies]

    async def record(self, records: Sequence[Record]) -> list[SettleResult]:
        """Write all in one round trip; what is there stays."""
        if not records:
            return []
        ttl = self._session.completion_ms
        try:
            replies = await self._session.servers.ask(
                [
                    (b"SET", done_key(each.key), record_value(each), b"NX", b"PX", ttl)
                    for each in records
                ]
            )
        except CatgaError as error:
            return [Unknown(error)] * len(records)
        return [
            Unknown(self._session.failure(reply)) if isinstance(reply, Exception) else Done()
            for reply in replies
        ]


def record_value(record: Record) -> bytes:
    """Return what stands under the key: a mark, and behind it the response, if any."""
    return b"1" + (record.response or b"")
