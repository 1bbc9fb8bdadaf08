"""Taskiq over NATS: a task for each message; stored ones by a pull consumer, its faster one."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from taskiq_nats import NatsBroker, PullBasedJetStreamBroker

from benchmarks.contestants.taskiq_shared import gathered, receive, sending
from benchmarks.job import NAME, Job, Sender, Watch


def _broker(job: Job) -> Any:
    if not job.qos:
        return NatsBroker(job.url, subject=NAME)
    return PullBasedJetStreamBroker(
        job.url,
        subject=NAME,
        stream_name=NAME,
        durable=NAME,
        pull_consume_batch=100,
        pull_consume_timeout=5,
    )


def sender(job: Job) -> AbstractAsyncContextManager[Sender]:
    """Send one message; above QoS 0 confirmed, and with an id."""
    return sending(_broker(job), job, ids=bool(job.qos))


async def prepare(job: Job, watch: Watch) -> None:  # noqa: ARG001
    """Make the stream and its consumer."""
    broker = _broker(job)
    await broker.startup()
    await broker.shutdown()


async def publish(job: Job, watch: Watch) -> None:
    """Send all, 256 at a time."""
    await gathered(sender, job, watch)


async def consume(job: Job, watch: Watch) -> None:
    """Run a receiver."""
    await receive(_broker(job), watch)
