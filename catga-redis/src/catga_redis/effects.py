"""The keys of transactions, beside the streams of their type, and the one step that writes them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from typing import Any

from catga.spi import Commit, EffectKey, EffectStore, Found
from catga_redis.inbox import record_value
from catga_redis.names import StreamKey, done_key, effect_key
from catga_redis.session import Session
from catga_redis.wire import pack_command

__all__ = ["RedisEffects", "commit_arguments"]


class RedisEffects(EffectStore):
    """Plain strings. The version of one is its digest: the same value is the same state."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def read(self, keys: Sequence[EffectKey]) -> list[Found]:
        """Read all in one round trip."""
        if not keys:
            return []
        packed = b"".join(pack_command((b"GET", effect_key(key))) for key in keys)
        replies = await self._session.commands.request(packed, len(keys))
        for reply in replies:
            if isinstance(reply, Exception):
                raise self._session.failure(reply) from reply
        return [Found(reply, _version(reply)) for reply in replies]


def _version(value: bytes | None) -> str:
    return "" if value is None else sha1(value, usedforsecurity=False).hexdigest()


def commit_arguments(stream: StreamKey, commit: Commit) -> tuple[list[bytes], list[Any]]:
    """Return the keys, and the values behind id and count, of the script that commits effects."""
    keys = [stream.key, done_key(commit.record.key)]
    values: list[Any] = [record_value(commit.record)]
    effects = commit.effects
    reads = {} if effects is None else effects.reads
    writes = {} if effects is None else effects.writes
    values.append(len(reads))
    for key, found in reads.items():
        keys.append(effect_key(key))
        values.append(found.version)
    for key, value in writes.items():
        keys.append(effect_key(key))
        values += (b"", b"") if value is None else (b"=", value)
    return keys, values
