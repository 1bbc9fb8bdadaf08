"""nats-py as its documentation shows: bytes in, bytes out, nothing decoded."""

from __future__ import annotations

import asyncio

from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeoutError

import nats
from benchmarks.job import NAME, Job, Watch

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
