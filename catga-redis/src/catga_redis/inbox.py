"""Completion records: one key each, beside the streams of its type."""

from __future__ import annotations

from collections.abc import Sequence

from catga.errors import CatgaError
from catga.spi import Completion, Done, InboxStore, SettleResult, Unknown
from catga_redis.names import done_key
from catga_redis.session import Session
from catga_redis.wire import pack_command

__all__ = ["RedisInbox"]


class RedisInbox(InboxStore):
    """Records with an expiry of D, on the server of the messages."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def completed(self, keys: Sequence[Completion]) -> list[bool]:
        """Look all up in one round trip."""
        if not keys:
            return []
        packed = b"".join(pack_command((b"EXISTS", done_key(key))) for key in keys)
        replies = await self._session.commands.request(packed, len(keys))
        for reply in replies:
            if isinstance(reply, Exception):
                raise self._session.failure(reply) from reply
        return [bool(reply) for reply in replies]

    async def record(self, keys: Sequence[Completion]) -> list[SettleResult]:
        """Write all in one round trip."""
        if not keys:
            return []
        ttl = self._session.completion_ms
        packed = b"".join(pack_command((b"SET", done_key(key), b"1", b"PX", ttl)) for key in keys)
        try:
            replies = await self._session.commands.request(packed, len(keys))
        except CatgaError as error:
            return [Unknown(error)] * len(keys)
        return [
            Unknown(self._session.failure(reply)) if isinstance(reply, Exception) else Done()
            for reply in replies
        ]
