"""Buses in memory on a manual clock: seconds cost nothing, and nothing is left to chance."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs

from catga import Bus, Event, Parts, QualityOfService, Request
from catga.plugins import installed_catalog
from catga.spi import Kind, Subject
from catga.testing import ManualClock, settle_loop
from catga_inmemory.broker import MemoryBroker
from catga_inmemory.transport import MemoryTransport

__all__ = [
    "Asked",
    "Fast",
    "Once",
    "Order",
    "Probe",
    "dead_letters",
    "eventually",
    "run",
    "stored",
]


@attrs.frozen
class Order(Event):
    number: int


@attrs.frozen
class Fast(Event):
    qos = QualityOfService.AT_MOST_ONCE
    number: int


@attrs.frozen
class Once(Event):
    qos = QualityOfService.EXACTLY_ONCE
    number: int


@attrs.frozen
class Asked(Request[int]):
    number: int


class Probe:
    """Makes buses that share one broker and one clock."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self._buses = 0

    def bus(self, settings: Mapping[str, object] | None = None, **more: Any) -> Bus:
        """A bus of the shared broker; it does not wait for its handlers unless told to."""
        given = {"wait_handled": False, "backoff_base": 1, **(settings or {})}
        more = {"service": "tests", **more}
        parts = Parts(clock=self.clock, catalog=installed_catalog())
        return Bus("inmemory://engine", settings=given, parts=parts, **more)

    async def pass_time(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        await settle_loop()


def run(law: Callable[[Probe], Awaitable[None]]) -> None:
    """Run one law on a loop of its own; a hang is a failure."""

    async def bounded() -> None:
        async with asyncio.timeout(20):
            await law(Probe())

    asyncio.run(bounded())


async def eventually(condition: Callable[[], object]) -> None:
    """Let the loop run until `condition` holds; time stands still meanwhile."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came true")


def broker_of(bus: Bus) -> MemoryBroker:
    session = bus._session
    assert session is not None
    transport = session.plan.transport
    assert isinstance(transport, MemoryTransport)
    broker = transport._broker
    assert broker is not None
    return broker


def stored(bus: Bus, type_: str) -> list[Any]:
    """Every entry the broker still holds for a type."""
    return list(broker_of(bus).stream(bus.namespace, type_).entries.values())


def dead_letters(bus: Bus, type_: str, group: str = "tests") -> list[bytes]:
    subject = Subject(bus.namespace, Kind.DEAD, type_, group)
    return [entry.body for entry in stored(bus, type_) if entry.subject == subject]
