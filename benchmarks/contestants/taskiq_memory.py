"""Taskiq's broker in memory, which runs a task where it is sent."""

from __future__ import annotations

from taskiq import InMemoryBroker

from benchmarks.contestants.taskiq_shared import task_of
from benchmarks.job import Job, Watch


async def exchange(job: Job, watch: Watch) -> None:
    """Send and handle in one process; a call returns when it is handled."""
    broker = InMemoryBroker(await_inplace=True)
    counter = Watch(job.count)
    order = task_of(broker, counter)
    messages = job.all_fields()
    await broker.startup()
    watch.begin()
    for message in messages:
        await order.kiq(**message)
    watch.end(job.count - counter.missing)
    await broker.shutdown()
