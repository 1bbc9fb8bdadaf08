"""Many retries leave room, and nothing is stranded, however often it is left behind."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from nats_kit import collect, nothing_comes, opened, until

from catga.spi import Ack, Done, EventKind, Nack, Settle
from catga.testing import free_port  # noqa: F401 - the kit's process control comes with it
from catga_nats.testing import NatsServer

SMALL: dict[str, Any] = {"max_ack_pending": 16}
_MANY = 100


def test_many_failing_messages_leave_room_for_the_good_ones(server: NatsServer) -> None:
    """More retries wait, and for longer than this test runs, than a group may hold unsettled."""

    async def law() -> None:
        async with opened(server.url, **SMALL) as here:
            subscription = await here.subscribe(here.source())
            bad = [here.outgoing(b"bad", f"bad{number}") for number in range(_MANY)]
            good = [here.outgoing(b"good", f"good{number}") for number in range(_MANY)]
            pairs = itertools.chain.from_iterable(zip(bad, good, strict=True))
            await here.transport.publish(list(pairs))
            handled: list[bytes] = []
            while handled.count(b"good") < _MANY:
                for delivery in await collect(subscription, 1):
                    handled.append(delivery.body)
                    outcome = Ack() if delivery.body == b"good" else Nack(600.0)
                    assert await subscription.settle([Settle(delivery, outcome)]) == [Done()]
            assert handled.count(b"bad") >= _MANY - 1
            info = await here.ask(f"CONSUMER.INFO.{here.namespace}-log.billing=Order")
            assert info["num_ack_pending"] <= 16 / 4
            assert (await here.transport.health()).ok

    asyncio.run(law())


def test_a_retry_that_was_moved_goes_on_counting_and_comes_to_its_group_only(
    server: NatsServer,
) -> None:
    async def law() -> None:
        async with opened(server.url, max_ack_pending=1) as here:
            subscription = await here.subscribe(here.source())
            other = await here.subscribe(here.source("audit"))
            await here.transport.publish([here.outgoing(b"1", "a"), here.outgoing(b"2", "b")])
            seen: list[tuple[bytes, int]] = []
            for _ in range(6):
                (delivery,) = await collect(subscription, 1)
                seen.append((delivery.body, delivery.attempt))
                await subscription.settle([Settle(delivery, Nack(0.5))])
                assert delivery.headers is None
            for body in (b"1", b"2"):
                attempts = [attempt for each, attempt in seen if each == body]
                assert attempts == list(range(1, len(attempts) + 1))
            for _ in range(2):
                (delivery,) = await collect(other, 1)
                assert delivery.attempt == 1
                await other.settle([Settle(delivery, Ack())])
            await nothing_comes(other)

    asyncio.run(law())


def test_a_group_that_can_be_given_nothing_more_is_told_and_unhealthy(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url, max_ack_pending=4) as here:
            subscription = await here.subscribe(here.source())
            await here.transport.publish([here.outgoing() for _ in range(6)])
            held = await collect(subscription, 4)
            health = await here.transport.health()
            assert not health.ok
            assert "billing=Order" in health.detail
            assert "max_ack_pending" in health.detail
            assert len(here.told(EventKind.SLOW_CONSUMER)) == 1
            await subscription.settle([Settle(each, Ack(), confirm=True) for each in held])
            rest = await collect(subscription, 2)
            assert (await here.transport.health()).ok
            await subscription.settle([Settle(each, Ack()) for each in rest])

    asyncio.run(law())


def test_saturation_is_noticed_without_being_asked(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url, max_ack_pending=4) as here:
            subscription = await here.subscribe(here.source())
            await here.transport.publish([here.outgoing() for _ in range(6)])
            held = await collect(subscription, 4)
            await until(lambda: bool(here.told(EventKind.SLOW_CONSUMER)))
            await subscription.settle([Settle(each, Ack()) for each in held])

    asyncio.run(law())
