"""Taskiq over Redis: a task for each message, by Pub/Sub or from a stream."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from taskiq_redis import PubSubBroker, RedisStreamBroker

from benchmarks.contestants.taskiq_shared import gathered, receive, sending
from benchmarks.job import NAME, Job, Sender, Watch


def _broker(job: Job) -> Any:
    if not job.qos:
        return PubSubBroker(job.url, queue_name=NAME, socket_timeout=None)
    return RedisStreamBroker(
        job.url,
        queue_name=NAME,
        consumer_group_name=NAME,
        consumer_id="0",
        socket_timeout=None,
        protocol=2,  # it reads the replies of this one
    )


def sender(job: Job) -> AbstractAsyncContextManager[Sender]:
    """Send one message."""
    return sending(_broker(job), job, ids=False)


async def prepare(job: Job, watch: Watch) -> None:  # noqa: ARG001
    """Make the stream and the group."""
    broker = _broker(job)
    await broker.startup()
    await broker.shutdown()


async def publish(job: Job, watch: Watch) -> None:
    """Send all, 256 at a time."""
    await gathered(sender, job, watch)


async def consume(job: Job, watch: Watch) -> None:
    """Run a receiver."""
    await receive(_broker(job), watch)
