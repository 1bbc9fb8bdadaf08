"""The first message at QoS 2 for a handler declared below: what happens while it is prepared."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from catga import Bus, CatgaError, ConfigurationError, QualityOfService
from catga.errors import ConnectionLost
from catga.spi import Topology
from catga_inmemory.transport import MemoryTransport
from core.engine_kit import Order, Probe, run


def lose_what_is_queued(bus: Bus) -> None:
    """As a transport does that was forgotten by its broker: another may be at it by now."""
    assert bus._session is not None
    for consumer in bus._session.consumers:
        for feed in consumer._feeds:
            for work in feed.works:
                work.delivery.doubtful = True


@pytest.mark.parametrize(
    "failure", [None, ConfigurationError("cannot be"), ConnectionLost("not now")], ids=repr
)
def test_what_is_lost_while_qos_2_is_prepared_is_counted_once_and_handled_when_it_comes_again(
    monkeypatch: pytest.MonkeyPatch, failure: CatgaError | None
) -> None:
    right, waits, goes_on = MemoryTransport.prepare, asyncio.Event(), asyncio.Event()

    async def prepare(self: MemoryTransport, topology: Topology, *rest: Any) -> None:
        exact = topology.qos is QualityOfService.EXACTLY_ONCE
        if exact and topology.sources and not goes_on.is_set():
            waits.set()
            await goes_on.wait()
            if failure is not None:
                raise failure
        await right(self, topology, *rest)

    monkeypatch.setattr(MemoryTransport, "prepare", prepare)

    async def law(probe: Probe) -> None:
        numbers: list[int] = []
        bus = probe.bus()

        @bus.handle(Order)
        async def handle(order: Order) -> None:
            numbers.append(order.number)

        async with bus:
            await bus.publish(Order(1), qos=QualityOfService.EXACTLY_ONCE)
            await waits.wait()
            lose_what_is_queued(bus)
            await probe.pass_time(1)
            assert bus.counts()["tests/Order"]["lost"] == 1
            goes_on.set()
            await probe.pass_time(120)
            counts = bus.counts()["tests/Order"]
            assert numbers == [1]
            assert {word: count for word, count in counts.items() if count} == {
                "received": 2,
                "lost": 1,
                "handled": 1,
                "ack": 1,
            }

    run(law)
