"""A server without room: who consumes goes on, for nothing else makes room again."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from redis_kit import (
    NAMESPACE,
    Lab,
    accepted,
    admin,
    gather_deliveries,
    lab,
    nothing_more,
    out,
    topology,
    until,
)

from catga.errors import TransportError
from catga.spi import (
    Ack,
    Delivery,
    Done,
    EventKind,
    Mode,
    Nack,
    QualityOfService,
    Settle,
    Source,
    Subscription,
)
from catga_redis.testing import RedisServer

QUICK = timedelta(seconds=0.05)
YOUNG = 0.1
"""Seconds of retention, and of W."""


async def start(bench: Lab, group: str = "workers", lease: float = 30.0) -> Subscription:
    """Start a process that consumes, with everything that it declares."""
    transport = await bench.transport(
        frozenset({"max_length"}), max_length=1000, reclaim_interval=QUICK, trim_interval=QUICK
    )
    source = Source(NAMESPACE, "Full", group, durable=True, lease=lease)
    qos = QualityOfService.AT_LEAST_ONCE
    declared = topology(source, qos=qos, window=YOUNG, retention=YOUNG)
    await transport.prepare(declared, Mode.CREATE)
    return await transport.subscribe(source)


async def settle(subscription: Subscription, found: list[Delivery]) -> None:
    results = await subscription.settle([Settle(each, Ack(), confirm=True) for each in found])
    assert results == [Done()] * len(found)


def test_a_consumer_starts_on_a_full_server_and_settles_what_is_pending(
    own_server: RedisServer,
) -> None:
    async def law() -> None:
        async with lab(own_server) as bench, admin(own_server) as client:
            before = await start(bench)
            publisher = await bench.transport()
            accepted(await publisher.publish([out("Full", str(n).encode()) for n in range(200)]))
            await client.zadd("{law:Full}:ephemeral", {"ghost": 0})
            await client.xgroup_create("{law:Full}:log:0", "ghost", "$")
            found = await gather_deliveries(before, 20)
            await client.config_set("maxmemory", 1)
            assert await before.settle([Settle(each, Nack()) for each in found]) == [Done()] * 20
            await before.close()
            after = await start(bench)
            await settle(after, await gather_deliveries(after, 200))

            async def trimmed() -> bool:
                return await client.xlen("{law:Full}:log:0") <= 1

            await until(trimmed)
            assert not any(each.kind is EventKind.TROUBLE for each in bench.events)

    asyncio.run(law())


def test_on_a_full_server_too_a_lease_is_its_holders(own_server: RedisServer) -> None:
    async def law() -> None:
        async with lab(own_server) as bench, admin(own_server) as client:
            await (await start(bench)).close()
            publisher = await bench.transport()
            accepted(await publisher.publish([out("Full")]))
            await client.config_set("maxmemory", 1)
            slow = await start(bench)
            found = await gather_deliveries(slow, 1)
            hasty = await start(bench, lease=0.2)
            assert await nothing_more(hasty, 0.6)
            await settle(slow, found)

    asyncio.run(law())


def test_what_does_not_exist_is_not_made_on_a_full_server(own_server: RedisServer) -> None:
    async def law() -> None:
        async with lab(own_server) as bench, admin(own_server) as client:
            await start(bench)
            await client.config_set("maxmemory", 1)
            with pytest.raises(TransportError, match="maxmemory"):
                await start(bench, "others")

    asyncio.run(law())


def test_a_refusal_to_take_over_is_said_once(own_server: RedisServer) -> None:
    async def law() -> None:
        async with lab(own_server) as bench, admin(own_server) as client:
            member = await start(bench)
            await client.acl_setuser("default", enabled=True, commands=["-xpending"])
            await until(lambda: any(each.kind is EventKind.TROUBLE for each in bench.events))
            await nothing_more(member)
            assert sum(each.kind is EventKind.TROUBLE for each in bench.events) == 1

    asyncio.run(law())
