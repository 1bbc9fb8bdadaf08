"""redis-py as its documentation shows: bytes in, bytes out, nothing decoded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis

from benchmarks.job import NAME, Asker, Job, Sender, Watch, number_in

PIPELINE = 256
READ = 100
POOL = 32
"""Connections that many callers share: more are slower."""
DEDUPE_MS = 600_000
DONE_MS = 86_400_000

STORE_ONCE = """
if redis.call('SET', KEYS[2] .. ARGV[1], 1, 'NX', 'PX', ARGV[3]) then
  return redis.call('XADD', KEYS[1], '*', 'b', ARGV[2])
end
return false
"""
"""A message that is stored once for each id."""

SETTLE_ONCE = """
for index = 3, #ARGV do
  redis.call('SET', KEYS[2] .. ARGV[index], 1, 'NX', 'PX', ARGV[2])
end
return redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 3))
"""
"""The marks that a group has completed messages, with their acknowledgements."""


async def prepare(job: Job, watch: Watch) -> None:  # noqa: ARG001
    """Make the stream and the group."""
    async with _client(job) as client:
        await client.xgroup_create(NAME, NAME, id="0", mkstream=True)


async def publish(job: Job, watch: Watch) -> None:
    """Pipelines of 256: `PUBLISH`, `XADD`, or a script that stores one id once."""
    bodies = job.bodies()
    async with _client(job) as client:
        store = client.register_script(STORE_ONCE)
        await client.script_load(STORE_ONCE)
        published = 0
        watch.begin()
        for start in range(0, job.count, PIPELINE):
            pipeline = client.pipeline(transaction=False)
            for number, body in enumerate(bodies[start : start + PIPELINE], start):
                if job.qos == 0:
                    pipeline.publish(NAME, body)
                elif job.qos == 1:
                    pipeline.xadd(NAME, {"b": body})
                else:
                    pipeline.evalsha(store.sha, 2, NAME, "id:", f"{number}", body, f"{DEDUPE_MS}")
            published += sum(reply is not None for reply in await pipeline.execute())
        watch.end(published)


def _client(job: Job) -> Any:
    # No time limit for each reply: with one, which is the default, it is a third slower.
    pool = BlockingConnectionPool.from_url(
        job.url, socket_timeout=None, max_connections=POOL, timeout=None
    )
    return Redis.from_pool(pool)


@asynccontextmanager
async def sender(job: Job) -> AsyncIterator[Sender]:
    """Send one command for each message; many callers have a pool of connections."""
    bodies = job.bodies()
    async with _client(job) as client:
        store = client.register_script(STORE_ONCE)

        async def send(number: int) -> None:
            if job.qos == 0:
                await client.publish(NAME, bodies[number])
            elif job.qos == 1:
                await client.xadd(NAME, {"b": bodies[number]})
            else:
                await store(keys=[NAME, "id:"], args=[f"{number}", bodies[number], f"{DEDUPE_MS}"])

        yield send, client.ping


@asynccontextmanager
async def asker(job: Job) -> AsyncIterator[Asker]:
    """Ask in one channel, listen for the answers in another."""
    bodies = job.bodies()
    waiting: dict[int, asyncio.Future[None]] = {}
    loop = asyncio.get_running_loop()
    async with _client(job) as client, client.pubsub() as pubsub:
        await pubsub.subscribe("answers")

        async def listen() -> None:
            async for message in pubsub.listen():
                if message["type"] == "message":
                    waiting.pop(int(message["data"])).set_result(None)

        async def ask(number: int) -> None:
            waiting[number] = future = loop.create_future()
            await client.publish(NAME, bodies[number])
            await future

        task = asyncio.create_task(listen())
        yield ask
        task.cancel()


async def answer(job: Job, watch: Watch) -> None:
    """Answer each question in the order in which they come."""
    async with _client(job) as client, client.pubsub() as pubsub:
        await pubsub.subscribe(NAME)
        async for message in pubsub.listen():
            if message["type"] == "subscribe":
                watch.ready()
                continue
            watch.add()
            await client.publish("answers", f"{number_in(message['data'])}")
            if watch.missing <= 0:
                break
    watch.end()


async def consume(job: Job, watch: Watch) -> None:
    """`listen`, or reads of 100 that are settled together, at QoS 2 with their marks."""
    async with _client(job) as client:
        if job.qos == 0:
            await _listen(client, watch)
        else:
            await _read(client, job, watch)
        watch.end()


async def _listen(client: Any, watch: Watch) -> None:
    async with client.pubsub() as pubsub:
        await pubsub.subscribe(NAME)
        async for message in pubsub.listen():
            if message["type"] == "subscribe":
                watch.ready()
                continue
            watch.add()
            if watch.missing <= 0:
                return


async def _read(client: Any, job: Job, watch: Watch) -> None:
    settle = client.register_script(SETTLE_ONCE)
    watch.ready()
    while watch.missing > 0:
        reply = await client.xreadgroup(NAME, NAME, {NAME: ">"}, count=READ, block=1000)
        for _, entries in reply.items() if isinstance(reply, dict) else reply:
            ids = [entry[0] for entry in _flat(entries)]
            watch.add(len(ids))
            if job.qos == 1:
                await client.xack(NAME, NAME, *ids)
            else:
                await settle(keys=[NAME, "done:"], args=[NAME, DONE_MS, *ids])


def _flat(entries: Any) -> Any:
    """Return the entries of one stream: RESP 3 wraps them in one more list."""
    return entries[0] if entries and isinstance(entries[0][0], (list, tuple)) else entries
