"""FastStream's `TestBroker`, its way to run without a server."""

from __future__ import annotations

from dataclasses import dataclass

from faststream.nats import NatsBroker, TestNatsBroker

from benchmarks.job import NAME, Job, Watch


@dataclass
class Order:
    """The message."""

    number: int
    customer: str
    paid: bool
    note: str


async def exchange(job: Job, watch: Watch) -> None:
    """Publish and handle in one process; a publish returns when it is handled."""
    broker = NatsBroker(logger=None)
    handled = 0

    async def handle(order: Order) -> None:  # noqa: ARG001
        nonlocal handled
        handled += 1

    broker.subscriber(NAME)(handle)
    messages = job.all_fields()
    async with TestNatsBroker(broker) as running:
        watch.begin()
        for message in messages:
            await running.publish(message, NAME)
        watch.end(handled)
