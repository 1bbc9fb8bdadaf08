"""The keys of transactions, beside the streams of their type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha1

from catga.spi import Command, EffectKey, EffectStore, Found
from catga_redis.commands import Plan, own_key
from catga_redis.names import effect_key
from catga_redis.session import Session

__all__ = ["RedisEffects"]


class RedisEffects(EffectStore):
    """Plain strings. The version of one is its digest: the same value is the same state."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def read(self, keys: Sequence[EffectKey]) -> list[Found]:
        """Read all in one round trip."""
        if not keys:
            return []
        replies = await self._session.servers.ask([(b"GET", effect_key(key)) for key in keys])
        for reply in replies:
            if isinstance(reply, Exception):
                raise self._session.failure(reply) from reply
        return [Found(reply, _version(reply)) for reply in replies]

    def checker(self, namespace: str, type_: str) -> Callable[[Command], None]:
        """Let nothing in that could fail when the rest is written."""
        return Plan(namespace, type_).add

    def own_key(self, namespace: str, type_: str, name: str) -> str:
        """Put the hash tag of the type behind the name."""
        return own_key(namespace, type_, name)


def _version(value: bytes | None) -> str:
    return "" if value is None else sha1(value, usedforsecurity=False).hexdigest()
