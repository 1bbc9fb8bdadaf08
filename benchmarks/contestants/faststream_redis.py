"""FastStream over Redis: typed messages, one call of the handler for each, no log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from faststream.redis import RedisBroker, StreamSub

from benchmarks.job import NAME, Asker, Job, Sender, Watch

PIPELINE = 256
READ = 100
POOL = 600
"""Connections at the most: 256 requests have two each."""


@dataclass
class Order:
    """The message."""

    number: int
    customer: str
    paid: bool
    note: str


async def publish(job: Job, watch: Watch) -> None:
    """Pipelines of 256, its fastest documented way."""
    broker = RedisBroker(job.url, logger=None, max_connections=POOL)
    messages = job.all_fields()
    place = {"stream": NAME} if job.qos else {"channel": NAME}
    async with broker:
        client = await broker.connect()
        published = 0
        watch.begin()
        for start in range(0, job.count, PIPELINE):
            async with client.pipeline(transaction=False) as pipeline:
                for message in messages[start : start + PIPELINE]:
                    await broker.publish(message, pipeline=pipeline, **place)
                published += len(await pipeline.execute())
        watch.end(published)


@asynccontextmanager
async def sender(job: Job) -> AsyncIterator[Sender]:
    """Publish one message; many callers have its pool of connections."""
    broker = RedisBroker(job.url, logger=None, max_connections=POOL)
    messages = job.all_fields()
    place = {"stream": NAME} if job.qos else {"channel": NAME}
    async with broker:
        client = await broker.connect()

        async def send(number: int) -> None:
            await broker.publish(messages[number], **place)

        yield send, client.ping


@asynccontextmanager
async def asker(job: Job) -> AsyncIterator[Asker]:
    """Ask by `request`."""
    broker = RedisBroker(job.url, logger=None, max_connections=POOL)
    messages = job.all_fields()
    async with broker:
        await broker.start()

        async def ask(number: int) -> None:
            await broker.request(messages[number], NAME, timeout=30)

        yield ask


async def answer(job: Job, watch: Watch) -> None:
    """Answer with the number; up to 256 at the same time."""
    broker = RedisBroker(job.url, logger=None, max_connections=POOL)

    async def handle(order: Order) -> int:
        watch.add()
        return order.number

    broker.subscriber(NAME, max_workers=256)(handle)
    async with broker:
        await broker.start()
        watch.ready()
        await watch.complete()
        await asyncio.sleep(0.1)  # the last answers leave after their handler
        watch.end()


async def prepare(job: Job, watch: Watch) -> None:
    """Make the stream and the group, by subscribing."""
    broker = _subscribed(job, watch)
    async with broker:
        await broker.start()


async def consume(job: Job, watch: Watch) -> None:
    """QoS 1: reads of 100 from a group; acknowledged after handling."""
    broker = _subscribed(job, watch)
    async with broker:
        await broker.start()
        watch.ready()
        await watch.complete()
        watch.end()


def _subscribed(job: Job, watch: Watch) -> RedisBroker:
    broker = RedisBroker(job.url, logger=None, max_connections=POOL)

    async def handle(order: Order) -> None:  # noqa: ARG001
        watch.add()

    if job.qos:
        stream = StreamSub(NAME, group=NAME, consumer=NAME, max_records=READ)
        broker.subscriber(stream=stream)(handle)
    else:
        broker.subscriber(NAME)(handle)
    return broker
