"""The one step that commits a transaction: effects, messages, record and acknowledgement.

A script is not rolled back when one of its commands fails. So what can fail is looked at first: who
has the delivery, what was read, what the user may do, what kind of value stands where. What is left
is a server without room or without the right to write, and that refuses the first write, which is
the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from catga.errors import CapabilityError, CatgaError, ConfigurationError
from catga.spi import (
    Commit,
    Conflict,
    Done,
    Effects,
    Lost,
    Outgoing,
    QualityOfService,
    Refused,
    SettleResult,
)
from catga_redis.commands import Plan
from catga_redis.inbox import record_value
from catga_redis.names import StreamKey, done_key, effect_key, seen_prefix, stream_key
from catga_redis.scripts import HELD, Script
from catga_redis.session import Session

__all__ = ["COMMIT_EFFECTS", "commit_effects"]

_RESULTS: tuple[SettleResult, ...] = (Lost(), Done(), Conflict(), Done(before=True))
_NOTHING = Effects({}, {})

COMMIT_EFFECTS = Script(
    HELD
    + b"""
-- KEYS: stream, record, read key ..., written key ..., key of a command ..., stream, dedupe key ...
-- ARGV: group, consumer, ttl ms, id, count, value, reads, writes, commands, publishes,
--       version ..., '=' or '' to remove, value ...,
--       type of a key or '' for any, by how much it is counted or '', field, words, name, word ...,
--       window ms (0: for ever) or '' to store always, length or '', body ...
-- 0: not held, 1: written, 2: a version differs, 3: recorded before; or why it cannot be done. Only
-- after 1 anything was written. The record is the fence, and the first write.
local stream, group, id = KEYS[1], ARGV[1], ARGV[4]
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('XACK', stream, group, id)
  return 3
end
if not held(stream, group, ARGV[2], id, ARGV[5]) then return 0 end
local reads, writes, commands = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
for i = 1, reads do
  local now = redis.call('GET', KEYS[2 + i])
  if (now and redis.sha1hex(now) or '') ~= ARGV[10 + i] then return 2 end
end
local function may(...)
  local known, yes = pcall(redis.acl_check_cmd, ...)
  return known and yes
end
local function wrong(key, wanted)
  local found = redis.call('TYPE', key).ok
  if found ~= wanted and found ~= 'none' then
    return key .. ' holds a ' .. found .. ', not a ' .. wanted
  end
end
if not may('SET', KEYS[2], '') then return 'the user may not run SET' end
if not may('XACK', stream, group, id) then return 'the user may not run XACK' end
local first_key, first = 3 + reads, 11 + reads
for n = 0, writes - 1 do
  if ARGV[first + 2 * n] ~= '=' and not may('DEL', KEYS[first_key + n]) then
    return 'the user may not run DEL'
  end
end
local own_key, at, run, sums = first_key + writes, first + 2 * writes, {}, {}
for n = 0, commands - 1 do
  local key, kind, amount, field = KEYS[own_key + n], ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local words = {ARGV[at + 4], key}
  for w = 1, tonumber(ARGV[at + 3]) - 1 do words[w + 2] = ARGV[at + 4 + w] end
  at = at + 4 + tonumber(ARGV[at + 3])
  if not may(unpack(words)) then return 'the user may not run ' .. words[1] .. ' on ' .. key end
  local found = kind ~= '' and wrong(key, kind)
  if found then return found end
  if amount ~= '' then
    local place = #key .. ':' .. key .. field
    local sum = sums[place]
    if not sum then
      local now = kind == 'hash' and redis.call('HGET', key, field)
      if kind ~= 'hash' then now = redis.call('GET', key) end
      now = now or '0'
      if #now > 17 or not (now == '0' or string.find(now, '^-?[1-9]%d*$')) then
        return key .. ' holds no integer that can be counted'
      end
      sum = math.abs(tonumber(now))
    end
    sums[place] = sum + tonumber(amount)
    if sums[place] >= 9007199254740992 then return key .. ' would be counted beyond 2^53' end
  end
  run[n + 1] = words
end
local out_key, out = own_key + commands, at
for n = 0, tonumber(ARGV[10]) - 1 do
  local key = KEYS[out_key + 2 * n]
  if not may('XADD', key, '*', 'b', '') then return 'the user may not run XADD on ' .. key end
  local found = wrong(key, 'stream') or wrong(KEYS[out_key + 2 * n + 1], 'string')
  if found then return found end
end
redis.call('SET', KEYS[2], ARGV[6], 'PX', ARGV[3])
for n = 0, writes - 1 do
  if ARGV[first + 2 * n] == '=' then
    redis.call('SET', KEYS[first_key + n], ARGV[first + 2 * n + 1])
  else
    redis.call('DEL', KEYS[first_key + n])
  end
end
for _, words in ipairs(run) do redis.call(unpack(words)) end
for n = 0, tonumber(ARGV[10]) - 1 do
  local key, seen = KEYS[out_key + 2 * n], KEYS[out_key + 2 * n + 1]
  local once, most, body = ARGV[out + 3 * n], ARGV[out + 3 * n + 1], ARGV[out + 3 * n + 2]
  if once == '' or redis.call('EXISTS', seen) == 0 then
    local name
    if most == '' then
      name = redis.call('XADD', key, '*', 'b', body)
    else
      name = redis.call('XADD', key, 'MAXLEN', '~', most, '*', 'b', body)
    end
    if once == '0' then
      redis.call('SET', seen, name)
    elseif once ~= '' then
      redis.call('SET', seen, name, 'PX', once)
    end
  end
end
redis.call('XACK', stream, group, id)
return 1
"""
)


async def commit_effects(
    session: Session, stream: StreamKey, id_: bytes, count: int, commit: Commit
) -> SettleResult:
    """Commit one. Raises what `Script.run` raises: then it is not known what became of it."""
    effects = _NOTHING if commit.effects is None else commit.effects
    if any(out.not_before is not None or not out.subject.durable for out in effects.outgoing):
        return Refused(CapabilityError("a commit publishes to stored subjects, at once"))
    if effects.outgoing and session.servers.sharded:
        return Refused(CapabilityError("a commit on a cluster publishes nothing"))
    place = commit.record.key
    plan = Plan(place.namespace, place.type)
    try:
        for command in effects.commands:
            plan.add(command)
    except ConfigurationError as error:
        return Refused(error)
    keys = [stream.key, done_key(commit.record.key)]
    values: list[Any] = [
        *(stream.group, session.member, session.completion_ms, id_, count),
        record_value(commit.record),
        *(len(effects.reads), len(effects.writes), len(plan.commands), len(effects.outgoing)),
        *(found.version for found in effects.reads.values()),
    ]
    keys += map(effect_key, (*effects.reads, *effects.writes))
    for value in effects.writes.values():
        values += (b"", b"") if value is None else (b"=", value)
    for planned in plan.commands:
        name, key, *rest = planned.words
        keys.append(key)
        amount = planned.amount if planned.counts else b""
        values += (planned.kind, amount, planned.field, len(rest) + 1, name, *rest)
    _add_outgoing(session, effects.outgoing, keys, values)
    outcome = await COMMIT_EFFECTS.run(session.line(stream.key), keys, values)
    if isinstance(outcome, bytes):
        words = outcome.decode(errors="backslashreplace")
        return Refused(CatgaError(f"nothing was written: {words}"))
    return _RESULTS[int(outcome)]


def _add_outgoing(
    session: Session, batch: Sequence[Outgoing], keys: list[bytes], values: list[Any]
) -> None:
    for out in batch:
        keys += (stream_key(out.subject), seen_prefix(out.subject) + out.message_id.encode())
        once = out.qos is QualityOfService.EXACTLY_ONCE
        window = session.window_of(out.subject) if once else b""
        values += (window, session.length_of(out.subject), out.body)
