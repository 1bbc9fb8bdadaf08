"""What the sample is tried with: messages, buses on a file, the transport itself."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs

from catga import Bus, Context, Event, QualityOfService, Request
from catga.ground.clock import SystemClock
from catga.plugins import installed_catalog
from catga.settings import parse_url
from catga.spi import (
    Delivery,
    Kind,
    Mode,
    Outgoing,
    Runtime,
    Source,
    Subject,
    Subscription,
    Topology,
    Transport,
    TransportEvent,
)

__all__ = [
    "GROUP",
    "LOG",
    "QUICK",
    "Double",
    "Noticed",
    "Paid",
    "Stored",
    "bus_on",
    "count",
    "enter",
    "eventually",
    "keep",
    "one",
    "opened",
    "outgoing",
    "run",
]

QUICK = {"backoff_base": 0.01, "backoff_cap": 0.05}
LOG = Subject("ns", Kind.LOG, "Note")
GROUP = Source("ns", "Note", "g", durable=True, lease=30)


@attrs.frozen
class Noticed(Event):
    qos = QualityOfService.AT_MOST_ONCE
    number: int


@attrs.frozen
class Stored(Event):
    number: int


@attrs.frozen
class Paid(Event):
    qos = QualityOfService.EXACTLY_ONCE
    number: int


@attrs.frozen
class Double(Request[int]):
    number: int


def bus_on(file: Path, settings: dict[str, object] | None = None, **more: Any) -> Bus:
    return Bus(
        f"sample://{file}", **{"service": "check", "settings": QUICK | (settings or {})} | more
    )


def keep(bus: Bus, cls: type, **options: Any) -> list[tuple[int, int]]:
    """Handle `cls`, keeping number and attempt of each in the list that is returned."""
    seen: list[tuple[int, int]] = []

    @bus.handle(cls, **options)
    async def handle(event: Any, context: Context) -> None:
        seen.append((event.number, context.attempt))

    return seen


def run(law: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await law()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"

    asyncio.run(bounded())


async def enter(bus: Bus) -> None:
    async with bus:
        pass


async def eventually(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - any condition, of any process
            await asyncio.sleep(0.005)


def count(file: Path, table: str) -> int:
    """Look with other eyes."""
    with sqlite3.connect(file) as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@asynccontextmanager
async def opened(
    file: Path, events: list[TransportEvent] | None = None, **topology: Any
) -> AsyncIterator[Transport]:
    """The transport itself, prepared for one group."""
    tasks: list[asyncio.Task[Any]] = []
    address, _ = parse_url(f"sample://{file}")
    descriptor = installed_catalog().transport_for("sample")
    transport = descriptor.factory(address, descriptor.settings(live_buffer=3), frozenset())

    def spawn(work: Coroutine[Any, Any, Any], name: str) -> None:
        tasks.append(asyncio.create_task(work, name=name))

    heard = [] if events is None else events
    await transport.open(Runtime(SystemClock(), spawn, heard.append, "me", "check", 5))
    given: dict[str, Any] = {
        "dedupe_window": 600.0,
        "completion_ttl": 600.0,
        "sources": (GROUP,),
    } | topology
    qos = QualityOfService.EXACTLY_ONCE
    try:
        await transport.prepare(Topology("ns", ("Note",), qos=qos, **given), Mode.CREATE)
        yield transport
    finally:
        await transport.close()
        await transport.close()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def outgoing(message_id: str, subject: Subject = LOG) -> Outgoing:
    return Outgoing(subject, b"body", message_id, QualityOfService.AT_LEAST_ONCE)


async def one(subscription: Subscription) -> Delivery:
    (delivery,) = await subscription.receive(10, 5)
    return delivery
