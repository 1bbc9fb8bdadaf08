"""Trimming: what every group has settled and nobody wants to keep any longer goes away."""

from __future__ import annotations

import random
from collections.abc import Iterable

from catga.errors import CatgaError
from catga_redis.errors import REPLY_ERRORS
from catga_redis.groups import ABANDONED_MS
from catga_redis.names import StreamKey, ephemeral_key, retention_key, retry_key
from catga_redis.scripts import NOW, WHEN_FULL, Script
from catga_redis.session import Session

__all__ = ["TRIM", "Trimmer"]

_LIMIT = 10_000
"""At most about so many entries in one script: the server does nothing else meanwhile."""

TRIM = Script(
    WHEN_FULL
    + NOW
    + b"""
-- KEYS: stream, retentions, ephemeral groups.
-- ARGV: ms after which an ephemeral group without readers is ended, limit, the name of a group's
--   retry set without the group.
-- Keeps whatever some group has not read, or has read and not settled, and whatever is younger
-- than the longest retention. An entry's id begins with its time. Returns how many it removed.
local function less(a, b)
  local am, as = string.match(a, '^(%d+)-(%d+)$')
  local bm, bs = string.match(b, '^(%d+)-(%d+)$')
  if am == bm then am, bm = as, bs end
  if #am ~= #bm then return #am < #bm end
  return am < bm
end
local function read(flat)
  local out = {}
  for i = 1, #flat, 2 do out[flat[i]] = flat[i + 1] end
  return out
end
local function abandoned(group)
  local since = redis.call('ZSCORE', KEYS[3], group)
  if not since then return false end
  if tonumber(since) == 0 then
    redis.call('ZADD', KEYS[3], now, group)
    return false
  end
  local idle = now - since
  for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group)) do
    idle = math.min(idle, read(flat).idle)
  end
  return idle > tonumber(ARGV[1])
end
local cut
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = read(flat)
  if abandoned(group.name) then
    redis.call('XGROUP', 'DESTROY', KEYS[1], group.name)
    redis.call('DEL', string.format(ARGV[3], group.name))
    redis.call('ZREM', KEYS[3], group.name)
  else
    local settled = group['last-delivered-id']
    if group.pending > 0 then
      local oldest = redis.call('XPENDING', KEYS[1], group.name)[2]
      if oldest and less(oldest, settled) then settled = oldest end
    end
    if not cut or less(settled, cut) then cut = settled end
  end
end
local keep
for _, vote in ipairs(redis.call('HVALS', KEYS[2])) do
  if vote == 'inf' then return 0 end
  keep = math.max(keep or 0, tonumber(vote))
end
if not cut or not keep or keep >= now then return 0 end
local old = string.format('%.0f-0', now - keep)
if less(old, cut) then cut = old end
-- Whole nodes first, which is cheap; within one node only when there is no whole one.
local removed = redis.call('XTRIM', KEYS[1], 'MINID', '~', cut, 'LIMIT', ARGV[2])
if removed == 0 then removed = redis.call('XTRIM', KEYS[1], 'MINID', '=', cut) end
return removed
"""
)


class Trimmer:
    """Trims the streams that one member reads, now and then. All members do: it does no harm."""

    def __init__(self, session: Session) -> None:
        self._session = session
        interval = session.settings.trim_interval
        self._interval = None if interval is None else interval.total_seconds()
        self.next = float("inf")
        """When to trim, by the monotonic clock."""
        if self._interval is not None:
            spread = random.random()  # noqa: S311 - spreads load, no secret
            self.next = session.runtime.clock.monotonic() + self._interval * spread

    async def trim(self, streams: Iterable[StreamKey], jitter: float) -> None:
        """Trim each, and note when to do it again; never raises: the next time will do."""
        if self._interval is None:
            return
        session = self._session
        self.next = session.runtime.clock.monotonic() + self._interval * jitter
        for stream in streams:
            namespace, type_ = stream.subject.namespace, stream.subject.type
            keys = [
                stream.key,
                retention_key(namespace, type_),
                ephemeral_key(namespace, type_),
            ]
            values = [ABANDONED_MS, _LIMIT, retry_key(stream.subject, "%s")]
            try:
                await TRIM.run(session.line(stream.key), keys, values)
            except REPLY_ERRORS:
                continue  # the stream is gone, or it is not permitted
            except CatgaError:
                return  # not connected
