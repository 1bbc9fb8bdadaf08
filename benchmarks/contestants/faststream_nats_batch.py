"""FastStream over NATS with a handler for whole batches."""

from __future__ import annotations

from faststream.nats import JStream, NatsBroker, PullSub

from benchmarks.contestants.faststream_nats import Order, publish
from benchmarks.job import NAME, Job, Watch

__all__ = ["consume", "prepare", "publish"]

BATCH = 100


async def prepare(job: Job, watch: Watch) -> None:
    """Make the stream, by subscribing to it."""
    async with _subscribed(job, watch) as broker:
        await broker.start()


async def consume(job: Job, watch: Watch) -> None:
    """Pull batches; each is acknowledged after its handler."""
    async with _subscribed(job, watch) as broker:
        client = await broker.connect()
        await broker.start()
        watch.ready()
        await watch.complete()
        await client.flush()
        watch.end()


def _subscribed(job: Job, watch: Watch) -> NatsBroker:
    broker = NatsBroker(job.url, logger=None)

    async def handle(orders: list[Order]) -> None:
        watch.add(len(orders))

    pull = PullSub(batch_size=BATCH, batch=True, timeout=0.1)
    broker.subscriber(NAME, stream=JStream(NAME), durable=NAME, pull_sub=pull)(handle)
    return broker
