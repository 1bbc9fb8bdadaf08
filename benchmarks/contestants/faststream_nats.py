"""FastStream over NATS: typed messages, one call of the handler for each, no log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from faststream.nats import JStream, NatsBroker

from benchmarks.job import NAME, Asker, Job, Sender, Watch

GATHER = 256
LIMIT = 1 << 30


@dataclass
class Order:
    """The message."""

    number: int
    customer: str
    paid: bool
    note: str


async def publish(job: Job, watch: Watch) -> None:
    """QoS 0: a loop. QoS 1: 256 confirmed publishes at a time, each with an id."""
    broker = NatsBroker(job.url, logger=None)
    messages = job.all_fields()
    async with broker:
        client = await broker.connect()
        await broker.start()
        published = 0
        watch.begin()
        if not job.qos:
            for message in messages:
                await broker.publish(message, NAME)
            await client.flush()
            published = job.count
        for start in range(0, job.count if job.qos else 0, GATHER):
            sent = (
                broker.publish(message, NAME, stream=NAME, headers={"Nats-Msg-Id": f"id-{number}"})
                for number, message in enumerate(messages[start : start + GATHER], start)
            )
            published += len(await asyncio.gather(*sent))
        watch.end(published)


@asynccontextmanager
async def sender(job: Job) -> AsyncIterator[Sender]:
    """Publish one message; above QoS 0 confirmed, and with an id."""
    broker = NatsBroker(job.url, logger=None)
    messages = job.all_fields()
    async with broker:
        client = await broker.connect()
        await broker.start()

        async def send(number: int) -> None:
            if job.qos:
                headers = {"Nats-Msg-Id": f"id-{number}"}
                await broker.publish(messages[number], NAME, stream=NAME, headers=headers)
            else:
                await broker.publish(messages[number], NAME)

        yield send, client.flush


@asynccontextmanager
async def asker(job: Job) -> AsyncIterator[Asker]:
    """Ask by `request`."""
    broker = NatsBroker(job.url, logger=None)
    messages = job.all_fields()
    async with broker:
        await broker.start()

        async def ask(number: int) -> None:
            await broker.request(messages[number], NAME, timeout=30)

        yield ask


async def answer(job: Job, watch: Watch) -> None:
    """Answer with the number; up to 256 at the same time."""
    broker = NatsBroker(job.url, logger=None)

    async def handle(order: Order) -> int:
        watch.add()
        return order.number

    broker.subscriber(NAME, max_workers=256)(handle)
    async with broker:
        client = await broker.connect()
        await broker.start()
        await client.flush()
        watch.ready()
        await watch.complete()
        await asyncio.sleep(0.1)  # the last answers leave after their handler
        watch.end()


async def prepare(job: Job, watch: Watch) -> None:
    """Make the stream, by subscribing to it."""
    broker = _subscribed(job, watch)
    async with broker:
        await broker.start()


async def consume(job: Job, watch: Watch) -> None:
    """QoS 1: a push consumer, which is faster there than pulling; acknowledged after handling."""
    broker = _subscribed(job, watch)
    async with broker:
        client = await broker.connect()
        await broker.start()
        await client.flush()
        watch.ready()
        await watch.complete()
        await client.flush()
        watch.end()


def _subscribed(job: Job, watch: Watch) -> NatsBroker:
    broker = NatsBroker(job.url, logger=None)

    async def handle(order: Order) -> None:  # noqa: ARG001
        watch.add()

    limits = {"pending_msgs_limit": LIMIT, "pending_bytes_limit": LIMIT}
    if job.qos:
        broker.subscriber(NAME, stream=JStream(NAME), durable=NAME, **limits)(handle)
    else:
        broker.subscriber(NAME, **limits)(handle)
    return broker
