"""What Taskiq does over every broker: a task called with each message's fields."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from taskiq import AsyncBroker
from taskiq.acks import AcknowledgeType
from taskiq.api import run_receiver_task

from benchmarks.job import Job, Sender, Watch

__all__ = ["gathered", "receive", "sending", "task_of"]

GATHER = 256


def task_of(broker: AsyncBroker, watch: Watch | None) -> Any:
    """Declare the task."""

    @broker.task(task_name="order")  # type: ignore[untyped-decorator]  # not installed here
    async def order(number: int, customer: str, paid: bool, note: str) -> None:  # noqa: ARG001
        if watch is not None:
            watch.add()

    return order


@asynccontextmanager
async def sending(broker: AsyncBroker, job: Job, *, ids: bool) -> AsyncIterator[Sender]:
    """Send one message; with an id of its own where the broker takes one."""
    order = task_of(broker, None)
    messages = job.all_fields()
    await broker.startup()

    async def send(number: int) -> None:
        if ids:
            labels = {"Nats-Msg-Id": f"id-{number}"}
            await order.kicker().with_labels(**labels).kiq(**messages[number])
        else:
            await order.kiq(**messages[number])

    async def settle() -> None:
        client = getattr(broker, "client", None)
        if client is not None:
            await client.flush()

    yield send, settle
    await broker.shutdown()


async def gathered(sender: Any, job: Job, watch: Watch) -> None:
    """Send 256 messages at a time: there is nothing for many."""
    async with sender(job) as (send, settle):
        watch.begin()
        for start in range(0, job.count, GATHER):
            numbers = range(start, min(start + GATHER, job.count))
            await asyncio.gather(*(send(number) for number in numbers))
        await settle()
        watch.end(job.count)


async def receive(broker: AsyncBroker, watch: Watch) -> None:
    """Run its receiver in this process; acknowledged after handling."""
    task_of(broker, watch)
    broker.is_worker_process = True
    await broker.startup()
    receiver = asyncio.create_task(
        run_receiver_task(
            broker,
            max_async_tasks=100,
            max_prefetch=100,
            ack_time=AcknowledgeType.WHEN_EXECUTED,
        )
    )
    await asyncio.sleep(0.3)  # nothing tells when it has subscribed
    watch.ready()
    await watch.complete()
    watch.end()
    receiver.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await receiver
    await broker.shutdown()
