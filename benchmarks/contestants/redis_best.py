"""redis-py's `Connection` at its best: packed commands, no time limit for each reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from hiredis import pack_command
from redis.asyncio import Connection

from benchmarks.contestants.redis_documented import (
    DEDUPE_MS,
    DONE_MS,
    PIPELINE,
    SETTLE_ONCE,
    prepare,
)
from benchmarks.job import NAME, Job, Sender, Watch

__all__ = ["consume", "prepare", "publish", "sender"]

PACK: Any = pack_command  # its stub allows one word only
READ = 500
MARK = 100
"""Messages in one call of the script: the server does nothing else meanwhile."""

STORE_BATCH = """
local stored = 0
for index = 2, #ARGV, 2 do
  if redis.call('SET', KEYS[2] .. ARGV[index], 1, 'NX', 'PX', ARGV[1]) then
    redis.call('XADD', KEYS[1], '*', 'b', ARGV[index + 1])
    stored = stored + 1
  end
end
return stored
"""


async def _connect(job: Job) -> Any:
    address = urlsplit(job.url)
    # RESP 2: messages of a subscription are plain replies there.
    connection: Any = Connection(
        host=address.hostname or "", port=address.port or 6379, protocol=2, socket_timeout=None
    )
    await connection.connect()
    return connection


async def _call(connection: Any, *words: Any) -> Any:
    await connection.send_packed_command([PACK(words)])
    return await connection.read_response()


async def publish(job: Job, watch: Watch) -> None:
    """Write 256 packed commands, read 256 replies; at QoS 2 one script call for 256 messages."""
    bodies = job.bodies()
    connection = await _connect(job)
    sha = await _call(connection, "SCRIPT", "LOAD", STORE_BATCH)
    published = 0
    watch.begin()
    for start in range(0, job.count, PIPELINE):
        part = bodies[start : start + PIPELINE]
        if job.qos == 2:
            words: list[Any] = [DEDUPE_MS]
            for number, body in enumerate(part, start):
                words += (f"{number}", body)
            published += await _call(connection, "EVALSHA", sha, 2, NAME, "id:", *words)
            continue
        if job.qos == 0:
            packed = [PACK(("PUBLISH", NAME, body)) for body in part]
        else:
            packed = [PACK(("XADD", NAME, "*", "b", body)) for body in part]
        await connection.send_packed_command([b"".join(packed)])
        for _ in part:
            await connection.read_response()
        published += len(part)
    watch.end(published)
    await connection.disconnect()


@asynccontextmanager
async def sender(job: Job) -> AsyncIterator[Sender]:
    """Let the commands of all callers of one turn of the loop leave together."""
    bodies = job.bodies()
    connection = await _connect(job)
    loop = asyncio.get_running_loop()
    waiting: list[tuple[bytes, asyncio.Future[Any]]] = []
    wake = asyncio.Event()

    async def carry() -> None:
        while True:
            await wake.wait()
            wake.clear()
            batch = waiting[:]
            waiting.clear()
            await connection.send_packed_command([b"".join(packed for packed, _ in batch)])
            for _, future in batch:
                future.set_result(await connection.read_response())

    async def send(number: int) -> None:
        future: asyncio.Future[Any] = loop.create_future()
        waiting.append((PACK(("XADD", NAME, "*", "b", bodies[number])), future))
        wake.set()
        await future

    async def settle() -> None:
        return None

    task = asyncio.create_task(carry())
    yield send, settle
    task.cancel()
    await connection.disconnect()


async def consume(job: Job, watch: Watch) -> None:
    """Read replies; the settlement of a batch leaves together with the next read."""
    connection = await _connect(job)
    if job.qos == 0:
        await _call(connection, "SUBSCRIBE", NAME)
        watch.ready()
        while watch.missing > 0:
            await connection.read_response()
            watch.add()
    else:
        await _read(connection, job, watch)
    watch.end()
    await connection.disconnect()


async def _read(connection: Any, job: Job, watch: Watch) -> None:
    sha = await _call(connection, "SCRIPT", "LOAD", SETTLE_ONCE)
    words = ("XREADGROUP", "GROUP", NAME, NAME, "COUNT", READ, "BLOCK", 1000, "STREAMS", NAME, ">")
    read = PACK(words)
    watch.ready()
    settle, waiting = b"", 0
    step = READ if job.qos == 1 else MARK
    while watch.missing > 0 or waiting:
        await connection.send_packed_command([settle + (read if watch.missing > 0 else b"")])
        for _ in range(waiting):
            await connection.read_response()
        settle, waiting = b"", 0
        if watch.missing <= 0:
            break
        reply = await connection.read_response()
        if not reply:
            continue
        ids = [entry[0] for entry in reply[0][1]]
        watch.add(len(ids))
        parts = [ids[start : start + step] for start in range(0, len(ids), step)]
        settle = b"".join(_settlement(job, sha, part) for part in parts)
        waiting = len(parts)


def _settlement(job: Job, sha: Any, ids: list[bytes]) -> Any:
    if job.qos == 1:
        return PACK(("XACK", NAME, NAME, *ids))
    return PACK(("EVALSHA", sha, 2, NAME, "done:", NAME, DONE_MS, *ids))
