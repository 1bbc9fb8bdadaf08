"""nats-py as its documentation shows: bytes in, bytes out, nothing decoded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeoutError

import nats
from benchmarks.job import NAME, Asker, Job, Sender, Watch

FETCH = 500
WINDOW = 1024
LIMIT = 1 << 30
"""Of what waits in the client: a slow consumer is measured, not robbed."""


async def prepare(job: Job, watch: Watch) -> None:  # noqa: ARG001
    """Make the stream, on disk, with duplicates noticed."""
    client = await nats.connect(job.url)
    await client.jetstream().add_stream(name=NAME, subjects=[NAME])
    await client.close()


async def publish(job: Job, watch: Watch) -> None:
    """QoS 0: a loop and a flush. Above: `publish_async` with message ids, all confirmed."""
    bodies = job.bodies()
    client = await nats.connect(job.url)
    if not job.qos:
        watch.begin()
        for body in bodies:
            await client.publish(NAME, body)
        await client.flush()
        watch.end(job.count)
    else:
        stream = client.jetstream(publish_async_max_pending=WINDOW)
        watch.begin()
        futures = [
            await stream.publish_async(NAME, body, headers={"Nats-Msg-Id": f"id-{number}"})
            for number, body in enumerate(bodies)
        ]
        watch.end(len(await asyncio.gather(*futures)))
    await client.close()


@asynccontextmanager
async def sender(job: Job) -> AsyncIterator[Sender]:
    """QoS 0: `publish`. Above: `publish` of JetStream; with many callers its `publish_async`."""
    bodies = job.bodies()
    client = await nats.connect(job.url)
    stream = client.jetstream(publish_async_max_pending=WINDOW)

    async def send(number: int) -> None:
        headers = {"Nats-Msg-Id": f"id-{number}"}
        if not job.qos:
            await client.publish(NAME, bodies[number])
        elif job.callers == 1:
            await stream.publish(NAME, bodies[number], headers=headers)
        else:
            await (await stream.publish_async(NAME, bodies[number], headers=headers))

    yield send, client.flush
    await client.close()


@asynccontextmanager
async def asker(job: Job) -> AsyncIterator[Asker]:
    """Ask by `request`."""
    bodies = job.bodies()
    client = await nats.connect(job.url)

    async def ask(number: int) -> None:
        await client.request(NAME, bodies[number], timeout=30)

    yield ask
    await client.close()


async def answer(job: Job, watch: Watch) -> None:
    """Answer with a short message."""
    client = await nats.connect(job.url)

    async def handle(message: Msg) -> None:
        watch.add()
        await message.respond(b'{"number":1}')

    await client.subscribe(NAME, cb=handle)
    await client.flush()
    watch.ready()
    await watch.complete()
    await client.flush()
    watch.end()
    await client.close()


async def consume(job: Job, watch: Watch) -> None:
    """QoS 0: a callback. QoS 1: `fetch` and `ack`. QoS 2: `fetch` and confirmed acks, gathered."""
    client = await nats.connect(job.url)
    if not job.qos:

        async def handle(message: Msg) -> None:  # noqa: ARG001
            watch.add()

        await client.subscribe(NAME, cb=handle, pending_msgs_limit=LIMIT, pending_bytes_limit=LIMIT)
        await client.flush()
        watch.ready()
        await watch.complete()
    else:
        pull = await client.jetstream().pull_subscribe(NAME, durable=NAME)
        watch.ready()
        while watch.missing > 0:
            try:
                messages = await pull.fetch(min(FETCH, watch.missing), timeout=5)
            except NatsTimeoutError:
                continue
            watch.add(len(messages))
            if job.qos == 1:
                for message in messages:
                    await message.ack()
            else:
                await asyncio.gather(*(message.ack_sync() for message in messages))
        await client.flush()
    watch.end()
    await client.close()
