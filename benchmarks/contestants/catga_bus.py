"""Catga, over any transport: typed messages in, one call of the handler for each out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs

from benchmarks.job import Asker, Job, Sender, Watch
from catga import Bus, Event, QualityOfService, Request


@attrs.frozen
class Order0(Event):
    """At most once."""

    qos = QualityOfService.AT_MOST_ONCE
    number: int
    customer: str
    paid: bool
    note: str


@attrs.frozen
class Order1(Event):
    """At least once."""

    qos = QualityOfService.AT_LEAST_ONCE
    number: int
    customer: str
    paid: bool
    note: str


@attrs.frozen
class Order2(Event):
    """Exactly once."""

    qos = QualityOfService.EXACTLY_ONCE
    number: int
    customer: str
    paid: bool
    note: str


@attrs.frozen
class Answer:
    """What a question is answered with."""

    number: int


@attrs.frozen
class Question(Request[Answer]):
    """Answered at QoS 0: a caller that waits asks again."""

    qos = QualityOfService.AT_MOST_ONCE
    number: int
    customer: str
    paid: bool
    note: str


Order = Order0 | Order1 | Order2
TYPES: tuple[type[Order0], type[Order1], type[Order2]] = (Order0, Order1, Order2)
CHUNK = 1000
"""So many are under way in memory, where a listener 10 000 behind would lose some at QoS 0."""


def _messages(job: Job) -> list[Order]:
    kind = TYPES[job.qos]
    return [
        kind(
            number=int(each["number"]),
            customer=str(each["customer"]),
            paid=bool(each["paid"]),
            note=str(each["note"]),
        )
        for each in job.all_fields()
    ]


def _consumer(job: Job, watch: Watch) -> Bus:
    # Raised for everybody: a consumer slower than its publisher is measured, not robbed.
    settings = {} if job.qos else {"live_buffer": 10 * job.count}
    bus = Bus(job.url, service="bench", settings=settings)

    async def handle(order: Order) -> None:  # noqa: ARG001
        watch.add()

    # At QoS 0 as the raw clients and FastStream listen: whoever listens gets each message.
    bus.handle(TYPES[job.qos], broadcast=not job.qos)(handle)
    return bus


def _settled(bus: Bus) -> int:
    return sum(each.get("ack", 0) for each in bus.counts().values())


async def _acknowledged(bus: Bus, count: int) -> None:
    # No event tells of it: the books do.
    while _settled(bus) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def prepare(job: Job, watch: Watch) -> None:
    """Make the stream and the group."""
    async with _consumer(job, watch):
        pass


async def publish(job: Job, watch: Watch) -> None:
    """Publish all; QoS 0 is over when the server has answered a ping behind them."""
    messages = _messages(job)
    async with Bus(job.url, service="bench", consume=False, publishes=[TYPES[job.qos]]) as bus:
        watch.begin()
        summary = await bus.publish_many(messages)
        if not job.qos:
            await bus.health()
        watch.end(summary.accepted)


async def consume(job: Job, watch: Watch) -> None:
    """Handle all, until each is acknowledged."""
    async with _consumer(job, watch) as bus:
        watch.ready()
        await watch.complete()
        if job.qos:
            await _acknowledged(bus, job.count)
        watch.end()


@asynccontextmanager
async def sender(job: Job) -> AsyncIterator[Sender]:
    """Publish one message at a time."""
    messages = _messages(job)
    async with Bus(job.url, service="bench", consume=False, publishes=[TYPES[job.qos]]) as bus:

        async def send(number: int) -> None:
            await bus.publish(messages[number])

        yield send, bus.health


@asynccontextmanager
async def asker(job: Job) -> AsyncIterator[Asker]:
    """Ask one question at a time."""
    questions = [
        Question(each.number, each.customer, each.paid, each.note) for each in _messages(job)
    ]
    async with Bus(job.url, service="asker", consume=False) as bus:

        async def ask(number: int) -> None:
            answer = await bus.request(questions[number], to="bench", timeout=30)
            if answer.number != questions[number].number:
                raise RuntimeError("the answer belongs to another question")

        yield ask


async def answer(job: Job, watch: Watch) -> None:
    """Answer as many questions as there are."""
    bus = Bus(job.url, service="bench", settings={"concurrency": 256})

    async def handle(question: Question) -> Answer:
        watch.add()
        return Answer(question.number)

    bus.handle(Question)(handle)
    async with bus:
        watch.ready()
        await watch.complete()
        watch.end()


async def end_to_end(job: Job, watch: Watch) -> None:
    """Publish each message when the one before is handled and acknowledged; in one process."""
    messages = _messages(job)
    bus = Bus(job.url, service="bench")
    handled = 0

    async def handle(order: Order) -> None:  # noqa: ARG001
        nonlocal handled
        handled += 1

    bus.handle(TYPES[job.qos])(handle)
    async with bus:
        watch.begin()
        for number, message in enumerate(messages, 1):
            await bus.publish(message)
            while _settled(bus) < number:  # noqa: ASYNC110 - an event would not tell of it
                await asyncio.sleep(0)
        watch.end(handled)


async def exchange(job: Job, watch: Watch) -> None:
    """Publish and handle in one process."""
    messages = _messages(job)
    bus = Bus(job.url, service="bench")
    handled = 0

    async def handle(order: Order) -> None:  # noqa: ARG001
        nonlocal handled
        handled += 1

    bus.handle(TYPES[job.qos])(handle)
    async with bus:
        watch.begin()
        for start in range(0, job.count, CHUNK):
            await bus.publish_many(messages[start : start + CHUNK])
            while handled < min(start + CHUNK, job.count):  # noqa: ASYNC110 - an event costs more
                await asyncio.sleep(0)
        watch.end(handled)
