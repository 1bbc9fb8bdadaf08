"""FastStream over Redis with a handler for whole batches."""

from __future__ import annotations

from faststream.redis import RedisBroker, StreamSub

from benchmarks.contestants.faststream_redis import READ, Order, publish
from benchmarks.job import NAME, Job, Watch

__all__ = ["consume", "prepare", "publish"]


async def prepare(job: Job, watch: Watch) -> None:
    """Make the stream and the group, by subscribing."""
    async with _subscribed(job, watch) as broker:
        await broker.start()


async def consume(job: Job, watch: Watch) -> None:
    """Read batches; each is acknowledged after its handler."""
    async with _subscribed(job, watch) as broker:
        await broker.start()
        watch.ready()
        await watch.complete()
        watch.end()


def _subscribed(job: Job, watch: Watch) -> RedisBroker:
    broker = RedisBroker(job.url, logger=None)

    async def handle(orders: list[Order]) -> None:
        watch.add(len(orders))

    stream = StreamSub(NAME, group=NAME, consumer=NAME, max_records=READ, batch=True)
    broker.subscriber(stream=stream)(handle)
    return broker
