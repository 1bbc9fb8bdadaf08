"""What must happen in one step at the server: Lua, each for the keys of one type."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import attrs
from redis.exceptions import NoScriptError

from catga_redis.wire import Line, pack_command

__all__ = [
    "BATCH",
    "BATCH_BYTES",
    "CLAIM_LIVE",
    "COMMIT",
    "EXTEND",
    "FORGET",
    "HELD",
    "KNOWN",
    "NOW",
    "PARK",
    "PUBLISH",
    "RECLAIM",
    "RELEASE",
    "WHEN_FULL",
    "Script",
    "parts",
]

BATCH = 256
"""At most so many entries in one script: the server does nothing else meanwhile."""

BATCH_BYTES = 1 << 22
"""At most about so many bytes of bodies in one script."""


def parts(indexes: Iterable[int], size_of: Callable[[int], int]) -> Iterator[list[int]]:
    """Cut what goes into one script by number and by size."""
    part: list[int] = []
    size = 0
    for index in indexes:
        length = size_of(index)
        if part and (len(part) == BATCH or size + length > BATCH_BYTES):
            yield part
            part, size = [], 0
        part.append(index)
        size += length
    if part:
        yield part


@attrs.frozen
class Script:
    """One script and the digest the server knows it by."""

    source: bytes = attrs.field(repr=False)
    digest: bytes = attrs.field(init=False)

    @digest.default
    def _digest(self) -> bytes:
        return hashlib.sha1(self.source, usedforsecurity=False).hexdigest().encode()

    async def run(self, line: Line, keys: Sequence[bytes], values: Sequence[Any]) -> Any:
        """Run it and return its reply; a server that does not know it yet is told once."""
        count = str(len(keys)).encode()
        packed = pack_command((b"EVALSHA", self.digest, count, *keys, *values))
        reply = (await line.request(packed))[0]
        if isinstance(reply, NoScriptError):
            packed = pack_command((b"EVAL", self.source, count, *keys, *values))
            reply = (await line.request(packed))[0]
        if isinstance(reply, Exception):
            raise reply
        return reply


PUBLISH = Script(b"""
-- KEYS: stream, dedupe key, stream, dedupe key ... ARGV: window ms, max length or '', body ...
-- Each: '+id' stored, '=id' was stored before, '!error' refused. By a replica: all refused.
-- A window of 0: the id is kept for ever.
local out = {}
for i = 1, #KEYS / 2 do
  local stream, seen, body = KEYS[2 * i - 1], KEYS[2 * i], ARGV[i + 2]
  local id = redis.call('GET', seen)
  if id then
    out[i] = '=' .. id
  else
    if ARGV[2] == '' then
      id = redis.pcall('XADD', stream, '*', 'b', body)
    else
      id = redis.pcall('XADD', stream, 'MAXLEN', '~', ARGV[2], '*', 'b', body)
    end
    if type(id) == 'table' then
      if string.find(id.err, 'READONLY', 1, true) then return id end
      out[i] = '!' .. id.err
    else
      if ARGV[1] == '0' then
        redis.call('SET', seen, id)
      else
        redis.call('SET', seen, id, 'PX', ARGV[1])
      end
      out[i] = '+' .. id
    end
  end
end
return out
""")

# The fence of all settlements: an entry is held by whoever has it with this delivery count.
HELD = b"""
local function held(stream, group, consumer, id, count)
  local p = redis.call('XPENDING', stream, group, id, id, 1)
  return #p == 1 and p[1][2] == consumer and p[1][4] == tonumber(count)
end
"""

NOW = b"""
-- What the server's clock says, in ms.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
"""

WHEN_FULL = b"#!lua flags=allow-oom"
"""The first line of a script that runs on a full server too: it makes room, or who does needs it.
Source: redis.io, "Scripting with Lua", script flags (Redis 7.0 and later)."""

COMMIT = Script(
    HELD
    + b"""
-- KEYS: stream, record ... ARGV: group, consumer, ttl ms, id, count, value, id, count, value ...
-- Almost always the ids come in order, so that one look at what lies between finds who has them.
local out, settled, counts, last = {}, {}, {}, 3 * #KEYS - 2
for _, p in ipairs(
  redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[4], ARGV[last], 2 * #KEYS, ARGV[2])
) do
  counts[p[1]] = p[4]
end
for i = 2, #KEYS do
  local at = 3 * i - 2
  local id, count = ARGV[at], ARGV[at + 1]
  out[i - 1] = 1
  if counts[id] == tonumber(count) or held(KEYS[1], ARGV[1], ARGV[2], id, count) then
    redis.call('SET', KEYS[i], ARGV[at + 2], 'NX', 'PX', ARGV[3])
    settled[#settled + 1] = id
  elseif redis.call('EXISTS', KEYS[i]) == 1 then
    settled[#settled + 1] = id
  else
    out[i - 1] = 0
  end
end
if #settled > 0 then redis.call('XACK', KEYS[1], ARGV[1], unpack(settled)) end
return out
"""
)

KNOWN = Script(b"""
-- KEYS: record ... Each: 1 it is there, 0 it is not. What is kept with it stays where it is.
local out = {}
for i = 1, #KEYS do out[i] = redis.call('EXISTS', KEYS[i]) end
return out
""")

PARK = Script(
    HELD
    + b"""
-- KEYS: stream, dead letters, dedupe key ...
-- ARGV: group, consumer, window ms, id, count, letter ...
-- Each: 1 parked and settled, 0 not held, '!error' the letter was refused and nothing is settled.
-- By a replica: all refused. A letter that is there and a delivery that is settled: asked again.
local out = {}
for i = 3, #KEYS do
  local at = 3 * (i - 2) + 1
  local id, count, letter = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local known = redis.call('EXISTS', KEYS[i]) == 1
  if held(KEYS[1], ARGV[1], ARGV[2], id, count) then
    local name = known or redis.pcall('XADD', KEYS[2], '*', 'b', letter)
    if type(name) == 'table' then
      if string.find(name.err, 'READONLY', 1, true) then return name end
      out[i - 2] = '!' .. name.err
    else
      if not known then redis.call('SET', KEYS[i], name, 'PX', ARGV[3]) end
      redis.call('XACK', KEYS[1], ARGV[1], id)
      out[i - 2] = 1
    end
  else
    local settled = #redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1) == 0
    out[i - 2] = known and settled and 1 or 0
  end
end
return out
"""
)

RELEASE = Script(
    HELD
    + NOW
    + b"""
-- KEYS: stream, retry set. ARGV: group, consumer, id, count, delay ms, id, count, delay ms ...
-- Until it is due the entry stays pending, with a member that does not exist. A delay of -1 gives
-- back what nobody saw: the attempt does not count. Each: 0 not held, 1 given back, 2 it was held
-- but trimmed or deleted, and XCLAIM has dropped it from the pending list.
local out = {}
for i = 3, #ARGV, 3 do
  local id, count, delay = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  if held(KEYS[1], ARGV[1], ARGV[2], id, count) then
    if delay < 0 then
      count, delay = count - 1, 0
    end
    local kept =
      redis.call('XCLAIM', KEYS[1], ARGV[1], 'nobody', 0, id, 'RETRYCOUNT', count, 'JUSTID')
    if #kept == 1 then redis.call('ZADD', KEYS[2], now + delay, id) end
    out[#out + 1] = #kept == 1 and 1 or 2
  else
    out[#out + 1] = 0
  end
end
return out
"""
)

EXTEND = Script(
    HELD
    + b"""
-- KEYS: stream. ARGV: group, consumer, id, count, id, count ...
-- JUSTID resets the idle time and leaves the delivery count alone.
local out = {}
for i = 3, #ARGV, 2 do
  if held(KEYS[1], ARGV[1], ARGV[2], ARGV[i], ARGV[i + 1]) then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
    out[#out + 1] = 1
  else
    out[#out + 1] = 0
  end
end
return out
"""
)

RECLAIM = Script(
    WHEN_FULL
    + NOW
    + b"""
-- KEYS: stream, retry set, due times, leases.
-- ARGV: group, consumer, its lease in ms, limit, where to go on, '' or as what it has a lease.
-- Takes what is due, then what is idle for its holder's lease and not waiting for its time.
-- Returns {ms until the next is due or -1, the same for what is not in the stream yet,
--          where to go on, entries that are gone, {id, count, fields} ...}.
local stream, retry, group, consumer = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local limit, from = tonumber(ARGV[4]), ARGV[5]
local out, gone = {}, 0
if ARGV[6] ~= '' then redis.call('HSET', KEYS[4], ARGV[6], ARGV[3]) end
local function is_kept(p)
  local lease = redis.call('HGET', KEYS[4], group .. '/' .. p[2])
  return lease and p[3] < tonumber(lease) or redis.call('ZSCORE', retry, p[1])
end
local function take(id)
  local p = redis.call('XPENDING', stream, group, id, id, 1)
  if #p == 0 then return end
  local entry = redis.call('XCLAIM', stream, group, consumer, 0, id)[1]
  if entry then
    out[#out + 1] = {id, p[1][4] + 1, entry[2]}
  else
    gone = gone + 1
  end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', retry, '-inf', now, 'LIMIT', 0, limit)) do
  redis.call('ZREM', retry, id)
  take(id)
end
for _ = 1, 10 do
  if #out >= limit then break end
  local page = redis.call('XPENDING', stream, group, 'IDLE', ARGV[3], from, '+', 100)
  if #page == 0 then from = '-' break end
  for _, p in ipairs(page) do
    if #out >= limit then break end
    from = '(' .. p[1]
    if not is_kept(p) then take(p[1]) end
  end
end
local function wait(due)
  local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
  return first[2] and math.max(first[2] - now, 0) or -1
end
return {wait(retry), wait(KEYS[3]), from, gone, out}
"""
)

FORGET = Script(b"""
-- KEYS: stream, leases. ARGV: group, idle ms, consumer ...
-- Removes members; never one with pending entries, for they would be destroyed with it.
local idle, wanted, out = tonumber(ARGV[2]), {}, 0
for i = 3, #ARGV do wanted[ARGV[i]] = true end
for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local c = {}
  for i = 1, #flat, 2 do c[flat[i]] = flat[i + 1] end
  if c.pending == 0 and (wanted[c.name] or c.idle > idle) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], c.name)
    redis.call('HDEL', KEYS[2], ARGV[1] .. '/' .. c.name)
    out = out + 1
  end
end
return out
""")

CLAIM_LIVE = Script(b"""
-- KEYS: claim ... ARGV: member, ttl ms.
-- A claim counts how often each member saw these bytes, and how often the group took them: who
-- sees a copy the group has not taken yet, takes it. So the same bytes sent twice are two messages.
-- Almost always nobody saw them before, and then it is one command.
local member, ttl, out = ARGV[1], ARGV[2], {}
local first = cjson.encode({['#'] = 1, [member] = 1})
for i, key in ipairs(KEYS) do
  out[i] = 1
  if not redis.call('SET', key, first, 'NX', 'PX', ttl) then
    local claim = cjson.decode(redis.call('GET', key))
    local seen = (claim[member] or 0) + 1
    if seen > claim['#'] then claim['#'] = seen else out[i] = 0 end
    claim[member] = seen
    redis.call('SET', key, cjson.encode(claim), 'PX', ttl)
  end
end
return out
""")
