"""Nodes on Redis: one key for each, with an expiry, and an index that heals itself.

The index is a sorted set scored by the ends of leases: a heartbeat puts its node in (again), and
drops what is long over; a snapshot drops what has no key. Nothing ever looks through all keys.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from catga.errors import DecodeError
from catga.spi import EventKind, NodeRecord, NodeStore, Sighting, Snapshot
from catga_redis.errors import REPLY_ERRORS
from catga_redis.names import node_key, nodes_channel, nodes_key
from catga_redis.scripts import BATCH, Script
from catga_redis.session import Session
from catga_redis.wire import Wire, pack_command

__all__ = ["LEAVE", "LOOK", "WRITE", "RedisNodes"]

_MOST_STRANGERS = 100
_EPOCH = datetime.fromtimestamp(0, UTC)

WRITE = Script(b"""
-- KEYS: node, index. ARGV: owner, record, ttl ms, id, channel or '' (to renew).
-- 1 written, 0 another owner has it or (to renew) nobody. No owner: free, or it has left.
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner and owner ~= ARGV[1] then return 0 end
if not owner and ARGV[5] == '' then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'record', ARGV[2], 'seen', now)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[4])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 10 * ARGV[3])
if ARGV[5] ~= '' then redis.call('PUBLISH', ARGV[5], ARGV[4]) end
return 1
""")

LEAVE = Script(b"""
-- KEYS: node. ARGV: owner, ttl ms, id, channel.
-- The key stays without an owner for a while, so that who reads knows that it left.
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'owner')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PUBLISH', ARGV[4], ARGV[3])
return 1
""")

LOOK = Script(b"""
-- KEYS: index, node ... ARGV: id ... Returns for each: owner or '', record, seen ms, ms left; or
-- nothing. An id without a key is dropped from the index. First a write that changes nothing: who
-- was demoted to a replica refuses it, and is not believed.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', 0)
local out = {}
for i = 2, #KEYS do
  local left = redis.call('PTTL', KEYS[i])
  if left > 0 then
    local found = redis.pcall('HMGET', KEYS[i], 'owner', 'record', 'seen')
    if found.err then found = {'?'} end
    out[i - 1] = {found[1] or '', found[2] or '', found[3] or '0', left}
  else
    redis.call('ZREM', KEYS[1], ARGV[i - 1])
    out[i - 1] = {}
  end
end
return out
""")


class RedisNodes(NodeStore):
    """The nodes of one namespace, with the server's clock."""

    def __init__(self, session: Session, namespace: str) -> None:
        self._session = session
        self._namespace = namespace
        self._index = nodes_key(namespace)
        self._channel = nodes_channel(namespace)
        self._strangers: set[bytes] = set()

    async def register(self, record: NodeRecord) -> bool:
        """Take the key, unless it has another owner."""
        return await self._write(record, self._channel)

    async def renew(self, record: NodeRecord) -> bool:
        """Write the key, while we own it: one script that touches our key and one place of the
        index."""
        return await self._write(record, b"")

    async def _write(self, record: NodeRecord, channel: bytes) -> bool:
        name = record.node.id
        keys = (node_key(self._namespace, name), self._index)
        values = (record.owner, record.to_bytes(), _milliseconds(record), name, channel)
        return bool(await self._run(WRITE, keys, values))

    async def deregister(self, record: NodeRecord) -> bool:
        """Give the key up, while we own it."""
        name = record.node.id
        values = (record.owner, _milliseconds(record), name, self._channel)
        return bool(await self._run(LEAVE, (node_key(self._namespace, name),), values))

    async def snapshot(self) -> Snapshot:
        """Read the index, then what stands in it."""
        try:
            names: list[bytes] = await self._session.line(self._index).call(
                *(b"ZRANGE", self._index, b"0", b"-1")
            )
        except REPLY_ERRORS as error:
            raise self._session.failure(error) from error
        present: dict[str, Sighting] = {}
        left: set[str] = set()
        for start in range(0, max(len(names), 1), BATCH):
            part = names[start : start + BATCH]
            keys = [self._index, *(self._key(name) for name in part)]
            for name, found in zip(part, await self._run(LOOK, keys, part), strict=True):
                if found and not found[0]:
                    left.add(_text(name))
                elif found and (sighting := self._sighting(name, found)) is not None:
                    present[sighting.node.id] = sighting
        return Snapshot(present, frozenset(left))

    def _key(self, name: bytes) -> bytes:
        return node_key(self._namespace, _text(name))

    def _sighting(self, name: bytes, found: Sequence[Any]) -> Sighting | None:
        owner, record, seen, left = found
        try:
            last_seen = _EPOCH + timedelta(milliseconds=int(seen))
            node = NodeRecord.from_bytes(record, last_seen).node
        except (DecodeError, ValueError, OverflowError) as error:
            if name not in self._strangers and len(self._strangers) < _MOST_STRANGERS:
                self._strangers.add(name)
                words = f"the key of {_text(name)[:80]} is passed over: {error}"
                self._session.emit(EventKind.TROUBLE, words)
            return None
        return Sighting(node, _text(owner), left / 1000)

    async def _run(self, script: Script, keys: Sequence[bytes], values: Sequence[Any]) -> Any:
        try:
            return await script.run(self._session.line(keys[0]), keys, values)
        except REPLY_ERRORS as error:
            raise self._session.failure(error) from error

    @asynccontextmanager
    async def hints(self, wake: Callable[[], None]) -> AsyncIterator[None]:
        """Listen on a connection of its own; after each reconnect something may have happened."""
        wires: list[Wire] = []

        async def greet() -> None:
            reply = (await wires[0].request(pack_command((b"SUBSCRIBE", self._channel))))[0]
            if isinstance(reply, Exception):
                raise self._session.failure(reply) from reply
            wake()

        wires.append(self._session.wire("nodes", greet=greet, on_push=lambda _: wake()))
        try:
            await wires[0].open()
            yield
        finally:
            await wires[0].close()


def _milliseconds(record: NodeRecord) -> int:
    return max(1, int(record.ttl * 1000))


def _text(word: bytes) -> str:
    """Read what may be a stranger's; no key has such a name then, and the index drops it."""
    return word.decode(errors="replace")
