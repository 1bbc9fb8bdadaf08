"""FastStream over Redis: typed messages, one call of the handler for each, no log."""

from __future__ import annotations

from dataclasses import dataclass

from faststream.redis import RedisBroker, StreamSub

from benchmarks.job import NAME, Job, Watch

PIPELINE = 256
READ = 100


@dataclass
class Order:
    """The message."""

    number: int
    customer: str
    paid: bool
    note: str


async def publish(job: Job, watch: Watch) -> None:
    """Pipelines of 256, its fastest documented way."""
    broker = RedisBroker(job.url, logger=None)
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
    broker = RedisBroker(job.url, logger=None)

    async def handle(order: Order) -> None:  # noqa: ARG001
        watch.add()

    if job.qos:
        stream = StreamSub(NAME, group=NAME, consumer=NAME, max_records=READ)
        broker.subscriber(stream=stream)(handle)
    else:
        broker.subscriber(NAME)(handle)
    return broker
