"""What the laws of the whole bus are tried with, the same on every transport."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs

from bus.outside_kit import MemoryOutside, NatsOutside, Outside, RedisOutside
from catga import Bus, Event, QualityOfService, Request
from catga.spi import Start
from catga.testing import ServerProcess
from catga_nats.testing import NatsServer
from catga_redis.testing import RedisServer

__all__ = [
    "PASSWORD",
    "QUICK",
    "USER",
    "Asked",
    "Fast",
    "Flavour",
    "Once",
    "Order",
    "Place",
    "Servers",
    "Text",
    "eventually",
    "fresh_namespace",
    "keep",
    "run",
    "settled",
]

QUICK = {"backoff_base": 0.01, "backoff_cap": 0.05}
"""Retries follow at once, so that no law has to wait for one."""
USER, PASSWORD = "alice", "s3cret-word"
OUTSIDE: Mapping[str, type[Outside]] = {
    "inmemory": MemoryOutside,
    "nats": NatsOutside,
    "redis": RedisOutside,
}
_counter = itertools.count(1)


@attrs.frozen
class Fast(Event):
    qos = QualityOfService.AT_MOST_ONCE
    number: int


@attrs.frozen
class Order(Event):
    number: int


@attrs.frozen
class Once(Event):
    qos = QualityOfService.EXACTLY_ONCE
    number: int


@attrs.frozen
class Text(Event):
    text: str


@attrs.frozen
class Asked(Request[int]):
    number: int


@attrs.frozen
class Flavour:
    """One transport, and for a broker which server program."""

    kind: str
    version: str = ""
    binary: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}-{self.version}" if self.version else self.kind

    def server(self, **options: Any) -> ServerProcess:
        """A server of its own, not started yet."""
        return (NatsServer if self.kind == "nats" else RedisServer)(self.binary, **options)

    def guarded_server(self) -> ServerProcess:
        """A server that wants `PASSWORD`."""
        user = {"user": USER} if self.kind == "nats" else {}
        return self.server(password=PASSWORD, **user)


class Servers:
    """One server per flavour for all the laws that leave it as it was."""

    def __init__(self) -> None:
        self._running: dict[Flavour, ServerProcess] = {}

    def shared(self, flavour: Flavour) -> ServerProcess | None:
        if flavour.kind == "inmemory":
            return None
        if flavour not in self._running:
            self._running[flavour] = flavour.server().start()
        return self._running[flavour]

    def stop(self) -> None:
        for server in self._running.values():
            server.stop()


def fresh_namespace() -> str:
    return f"law{os.getpid()}-{next(_counter)}"


@attrs.frozen
class Place:
    """Where one law is tried."""

    flavour: Flavour
    server: ServerProcess | None
    namespace: str

    @property
    def kind(self) -> str:
        return self.flavour.kind

    @property
    def url(self) -> str:
        return f"inmemory://{self.namespace}" if self.server is None else self.server.url

    def bus(self, *, settings: Mapping[str, object] | None = None, **more: Any) -> Bus:
        given = {"service": "tests", "namespace": self.namespace, **more}
        return Bus(self.url, settings={**QUICK, **(settings or {})}, **given)

    @asynccontextmanager
    async def outside(self) -> AsyncIterator[Outside]:
        """A client of the broker that knows nothing of Catga."""
        outside = await OUTSIDE[self.kind].connect(self.url, self.namespace)
        try:
            yield outside
        finally:
            await outside.close()


def keep(bus: Bus, cls: type, **options: Any) -> list[int]:
    """Handle `cls` by keeping its numbers in the list that is returned."""
    numbers: list[int] = []
    options.setdefault("start", Start.BEGINNING)

    @bus.handle(cls, **options)
    async def handle(message: Any) -> None:
        numbers.append(message.number)

    return numbers


def run(law: Callable[[], Awaitable[None]], seconds: float = 30) -> None:
    """Run one law on a loop of its own; a hang, and a task left behind, are failures."""

    async def bounded() -> None:
        async with asyncio.timeout(seconds):
            await law()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"left behind: {left}"

    asyncio.run(bounded())


async def eventually(condition: Callable[[], Any], seconds: float = 10) -> None:
    """Await a condition, plain or to be awaited, until it holds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        met = condition()
        if await met if isinstance(met, Awaitable) else met:
            return
        assert loop.time() < deadline, "it never came true"
        await asyncio.sleep(0.01)


async def settled(outside: Outside, type_: str, *groups: str) -> None:
    """Return once the broker itself says that nothing is left to these groups."""
    for group in groups:

        async def nothing_left(group: str = group) -> bool:
            return await outside.unsettled(type_, group) == 0

        await eventually(nothing_left, 30)  # a lost acknowledgement costs a lease
