"""Messages with a time of their own: they wait beside their stream until they are due.

The server's clock decides. Whoever reads a stream for a group moves what is due into it, in the
loop that looks for old entries; while nobody reads, what is due waits, as the stream itself would.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

from catga.errors import CapabilityError
from catga.spi import Kind, Outgoing, PublishResult, QualityOfService, Rejected, Subject
from catga_redis.names import StreamKey, later_keys, seen_prefix, stream_key
from catga_redis.scripts import BATCH, BATCH_BYTES, NOW, Script, parts
from catga_redis.session import Session
from catga_redis.storing import store_by

__all__ = ["CANNOT_WAIT", "MOVE", "can_wait", "move_due", "store_later"]

CANNOT_WAIT = Rejected(CapabilityError("only what a group reads can be delayed: not this subject"))

_FIELDS = b"""
local function add(stream, most, body, attempts, replays)
  local words = {'XADD', stream}
  if most ~= '' then
    words[3], words[4], words[5] = 'MAXLEN', '~', most
  end
  words[#words + 1] = '*'
  words[#words + 1] = 'b'
  words[#words + 1] = body
  if attempts and attempts ~= '0' then
    words[#words + 1] = 'catga-attempts'
    words[#words + 1] = attempts
  end
  if replays and replays ~= '0' then
    words[#words + 1] = 'catga-replays'
    words[#words + 1] = replays
  end
  return redis.pcall(unpack(words))
end
"""

STORE = Script(
    NOW
    + _FIELDS
    + b"""
-- KEYS: stream, due times, bodies, dedupe key ... ARGV: window ms (0: for ever), max length or
--   '', due ms, '1' to store once or '', attempts, replays, body ...
-- Answers as PUBLISH does. What waits has a name of its own; what is due by now does not wait.
local out, n = {}, 0
for i = 4, #KEYS do
  local at = 5 * (i - 4) + 3
  local due, once = tonumber(ARGV[at]), ARGV[at + 1] == '1'
  local attempts, replays, body = ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local name = once and redis.call('GET', KEYS[i])
  if name then
    out[i - 3] = '=' .. name
  else
    local done
    if due <= now then
      done = add(KEYS[1], ARGV[2], body, attempts, replays)
      name = done
    else
      repeat
        name = string.format('%.0f-%d', now, n)
        n = n + 1
      until redis.call('HEXISTS', KEYS[3], name) == 0
      local words = {'HSET', KEYS[3], name, body}
      if attempts ~= '0' then
        words[#words + 1] = name .. ':attempts'
        words[#words + 1] = attempts
      end
      if replays ~= '0' then
        words[#words + 1] = name .. ':replays'
        words[#words + 1] = replays
      end
      done = redis.pcall(unpack(words))
      if type(done) ~= 'table' then redis.call('ZADD', KEYS[2], due, name) end
    end
    if type(done) == 'table' then
      if string.find(done.err, 'READONLY', 1, true) then return done end
      out[i - 3] = '!' .. done.err
    else
      if once and ARGV[1] == '0' then
        redis.call('SET', KEYS[i], name)
      elseif once then
        redis.call('SET', KEYS[i], name, 'PX', tonumber(ARGV[1]) + math.max(due - now, 0))
      end
      out[i - 3] = '+' .. name
    end
  end
end
return out
"""
)

MOVE = Script(
    NOW
    + _FIELDS
    + b"""
-- KEYS: stream, due times, bodies. ARGV: limit, bytes, max length or ''.
-- Returns ms until the next is due, or -1. An error leaves what is not moved where it is.
local size = 0
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[1])) do
  local a, r = name .. ':attempts', name .. ':replays'
  local held = redis.call('HMGET', KEYS[3], name, a, r)
  if held[1] then
    local done = add(KEYS[1], ARGV[3], held[1], held[2], held[3])
    if type(done) == 'table' then return done end
    size = size + #held[1]
  end
  redis.call('ZREM', KEYS[2], name)
  redis.call('HDEL', KEYS[3], name, a, r)
  if size >= tonumber(ARGV[2]) then break end
end
local next = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
return next[2] and math.max(next[2] - now, 0) or -1
"""
)


def can_wait(subject: Subject) -> bool:
    """Whether somebody moves what is due there: a stream that groups read."""
    return subject.durable and subject.kind is not Kind.DEAD


async def store_later(
    session: Session, batch: Sequence[Outgoing], indexes: Sequence[int], results: list[Any]
) -> None:
    """Store each until it is due, with what it carries; at QoS 2 once per id.

    An id is remembered until W after the time it is due.
    """
    by_subject: dict[Subject, list[int]] = {}
    for index in indexes:
        by_subject.setdefault(batch[index].subject, []).append(index)
    for subject, all_of_it in by_subject.items():
        for part in parts(all_of_it, lambda index: len(batch[index].body)):
            outs = [batch[index] for index in part]
            found = await _store(session, subject, outs)
            for index, result in zip(part, found, strict=True):
                results[index] = result


async def _store(
    session: Session, subject: Subject, outs: Sequence[Outgoing]
) -> list[PublishResult]:
    seen = seen_prefix(subject)
    keys = [stream_key(subject), *later_keys(subject)]
    values: list[Any] = [session.window_of(subject), session.length_of(subject)]
    for out in outs:
        due = 0 if out.not_before is None else ceil(out.not_before.timestamp() * 1000)
        once = b"1" if out.qos is QualityOfService.EXACTLY_ONCE else b""
        keys.append(seen + out.message_id.encode())
        values += (max(due, 0), once, max(out.attempts, 0), max(out.replays, 0), out.body)
    return await store_by(STORE, session, keys, values, outs)


async def move_due(session: Session, stream: StreamKey) -> int:
    """Move what is due into the stream; return milliseconds until the next is, or -1.

    Raises what `Script.run` raises; nothing is lost then.
    """
    keys = [stream.key, *stream.later]
    values = [BATCH, BATCH_BYTES, session.length_of(stream.subject)]
    return int(await MOVE.run(session.line(stream.key), keys, values))
