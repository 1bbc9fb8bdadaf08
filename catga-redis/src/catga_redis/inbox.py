"""Completion records: one key each, beside the streams of its type."""

from __future__ import annotations

from collections.abc import Sequence

from catga.errors import CatgaError
from catga.spi import Completion, Done, InboxStore, Record, SettleResult, Unknown
from catga_redis.errors import REPLY_ERRORS
from catga_redis.names import done_key
from catga_redis.scripts import BATCH, KNOWN
from catga_redis.session import Session

__all__ = ["RedisInbox", "record_value"]


class RedisInbox(InboxStore):
    """Records with an expiry of D, on the server of the messages."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def completed(self, keys: Sequence[Completion]) -> list[bool]:
        """Look up to 256 up in one command with one reply, and once more if any is there.

        Almost always none is, and to count them is all that the server has to do.
        """
        known = [False] * len(keys)
        names = [done_key(key) for key in keys]
        servers = self._session.servers
        parts = [
            places[at : at + BATCH]
            for _, places in servers.split(range(len(keys)), names.__getitem__)
            for at in range(0, len(places), BATCH)
        ]
        asked = [[names[place] for place in part] for part in parts]
        try:
            counts = await servers.ask([(b"EXISTS", *part) for part in asked])
            for part, sought, count in zip(parts, asked, counts, strict=True):
                if isinstance(count, Exception):
                    raise count
                if count:
                    there = await KNOWN.run(servers.line(sought[0]), sought, ())
                    for place, each in zip(part, there, strict=True):
                        known[place] = bool(each)
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
