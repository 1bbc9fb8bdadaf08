"""What is deleted under a running bus is noticed and made again, and on it goes."""

from __future__ import annotations

import asyncio

import attrs
import pytest
from nats_kit import fresh_namespace, opened, until

from catga import Context, Message
from catga.bus import Bus
from catga.model.qos import QualityOfService
from catga_nats.testing import NatsServer


@attrs.frozen
class Order(Message):
    """What is handled; its id tells which."""

    qos = QualityOfService.AT_LEAST_ONCE


@pytest.mark.parametrize("lost", ["CONSUMER.DELETE.{0}-log.billing=Order", "STREAM.DELETE.{0}-log"])
def test_what_is_deleted_at_run_time_is_made_again_and_the_bus_goes_on(
    server: NatsServer, lost: str
) -> None:
    async def law() -> None:
        namespace = fresh_namespace()
        bus = Bus(server.url, service="billing", namespace=namespace)
        handled: set[str] = set()

        @bus.handle(Order)
        async def handle(order: Order, context: Context) -> None:
            handled.add(context.message_id)

        async with opened(server.url, namespace) as beside, bus:
            await bus.publish(Order(), message_id="first")
            await until(lambda: "first" in handled)
            await beside.subscribe(beside.source())  # so that it is asked for its health
            await beside.ask(lost.format(namespace))
            assert not (await beside.transport.health()).ok

            async def goes_on() -> bool:
                try:
                    await bus.publish(Order(), message_id="second")
                except Exception:  # while there is no stream
                    return False
                await asyncio.sleep(0.1)
                return "second" in handled

            await until(goes_on)

    asyncio.run(law())
