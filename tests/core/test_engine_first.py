"""The first message at QoS 2 for a handler declared below: what happens while it is prepared."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from catga import Bus, ConfigurationError, QualityOfService
from catga.errors import ConnectionLost
from catga.spi import Topology
from catga_inmemory.transport import MemoryTransport
from core.engine_kit import Order, Probe, broker_of, run, stored


def lose_what_is_queued(bus: Bus) -> None:
    """As a transport does that was forgotten by its broker: another may be at it by now."""
    assert bus._session is not None
    for consumer in bus._session.consumers:
        for feed in consumer._feeds:
            for work in feed.works:
                work.delivery.doubtful = True


class Held:
    """Whoever prepares QoS 2 for a handler waits until it may go on, and then may fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failure: Exception | None = None) -> None:
        self.waits, self.goes_on = asyncio.Event(), asyncio.Event()
        right = MemoryTransport.prepare

        async def prepare(transport: MemoryTransport, topology: Topology, *rest: Any) -> None:
            exact = topology.qos is QualityOfService.EXACTLY_ONCE
            if exact and topology.sources and not self.goes_on.is_set():
                self.waits.set()
                await self.goes_on.wait()
                if failure is not None:
                    raise failure
            await right(transport, topology, *rest)

        monkeypatch.setattr(MemoryTransport, "prepare", prepare)

    async def __aenter__(self) -> None:
        await self.waits.wait()

    async def __aexit__(self, *_: object) -> None:
        self.goes_on.set()


def books(bus: Bus) -> dict[str, int]:
    return {word: count for word, count in bus.counts()["tests/Order"].items() if count}


@pytest.mark.parametrize(
    "failure",
    [None, ConfigurationError("cannot be"), ConnectionLost("not now"), RuntimeError("a plugin's")],
    ids=repr,
)
def test_what_is_lost_while_qos_2_is_prepared_is_counted_once_and_handled_when_it_comes_again(
    monkeypatch: pytest.MonkeyPatch, failure: Exception | None
) -> None:
    async def law(probe: Probe) -> None:
        held, numbers = Held(monkeypatch, failure), list[int]()
        bus = probe.bus()

        @bus.handle(Order)
        async def handle(order: Order) -> None:
            numbers.append(order.number)

        async with bus:
            await bus.publish(Order(1), qos=QualityOfService.EXACTLY_ONCE)
            async with held:
                lose_what_is_queued(bus)
                await probe.pass_time(1)
                assert books(bus)["lost"] == 1
            await probe.pass_time(120)
            assert numbers == [1]
            assert books(bus) == {"received": 2, "lost": 1, "handled": 1, "ack": 1}

    run(law)


def test_what_has_come_too_often_and_is_lost_meanwhile_is_let_go_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def law(probe: Probe) -> None:
        numbers: list[int] = []
        bus, sender = probe.bus({"lease": 3}), probe.bus(consume=False)

        @bus.handle(Order)
        async def handle(order: Order) -> None:
            numbers.append(order.number)

        async with sender:
            await sender.publish(Order(1))
            (first,) = stored(sender, "Order")
            await sender.publish(Order(2), qos=QualityOfService.EXACTLY_ONCE)
            first.attempts = 50
            held = Held(monkeypatch)
            async with bus:
                async with held:
                    lose_what_is_queued(bus)
                    for hand in (
                        broker_of(bus).stream(bus.namespace, "Order").groups["tests"]._hands
                    ):
                        hand.pop(first, None)  # as another owner's claim leaves it
                    await probe.pass_time(3)
                    assert books(bus)["lost"] == 2
                await probe.pass_time(120)
                assert numbers == [2]
                assert books(bus) == {"received": 3, "lost": 2, "handled": 1, "ack": 1}

    run(law)


@pytest.mark.parametrize(
    "failure", [ConnectionLost("not now"), RuntimeError("a plugin's")], ids=repr
)
def test_what_cannot_be_prepared_now_comes_again_and_is_handled_then(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    async def law(probe: Probe) -> None:
        held, numbers = Held(monkeypatch, failure), list[int]()
        bus = probe.bus()

        @bus.handle(Order)
        async def handle(order: Order) -> None:
            numbers.append(order.number)

        async with bus:
            await bus.publish(Order(1), qos=QualityOfService.EXACTLY_ONCE)
            async with held:
                pass
            await probe.pass_time(120)
            assert numbers == [1]
            assert books(bus) == {"received": 2, "nack": 1, "handled": 1, "ack": 1}

    run(law)
