"""What the server handed over and a broken connection swallowed."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from redis.asyncio import Redis
from redis_kit import admin, gather_deliveries, lab, nothing_more, until

from catga_redis.testing import RedisServer
from catga_redis.transport import RedisTransport


async def swallow(client: Redis, transport: RedisTransport, body: bytes) -> str:
    """As if the reply of a read had been lost: the server counts it as handed over."""
    assert transport._session is not None
    key, name = "{law:Swallow}:to:workers", transport._session.member.decode()
    async with client.pipeline(transaction=True) as at_once:
        at_once.xadd(key, {"b": body})
        at_once.xreadgroup("workers", name, {key: ">"})
        return str((await at_once.execute())[0].decode())


async def end_reads(client: Redis) -> None:
    """Break the connection that reads."""
    for each in await client.client_list():
        if each["name"] == "lab:group-workers":
            await client.client_kill_filter(_id=each["id"])


def test_what_a_broken_read_swallowed_comes_at_once_and_as_the_first_attempt(
    server: RedisServer,
) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            member = await bench.member(transport, "Swallow", lease=30.0)
            assert await nothing_more(member, 0.1)
            sequence = await swallow(client, transport, b"1")
            await end_reads(client)
            (again,) = await gather_deliveries(member, 1, 5.0)
            assert (again.sequence, again.attempt) == (sequence, 1)

    asyncio.run(law())


def test_what_a_broken_read_swallowed_is_given_back_though_that_is_refused_at_first(
    own_server: RedisServer,
) -> None:
    async def law() -> None:
        async with lab(own_server) as bench, admin(own_server) as client:
            transport = await bench.transport(reclaim_interval=timedelta(seconds=0.2))
            member = await bench.member(transport, "Swallow", lease=30.0)
            assert await nothing_more(member, 0.1)
            await swallow(client, transport, b"1")
            await client.acl_setuser("default", enabled=True, commands=["-xclaim"])

            async def refused() -> bool:
                return any(each["object"] == "xclaim" for each in await client.acl_log())

            await end_reads(client)
            await until(refused)
            await client.acl_setuser("default", enabled=True, commands=["+xclaim"])
            (again,) = await gather_deliveries(member, 1, 5.0)
            assert (again.body, again.attempt) == (b"1", 1)

    asyncio.run(law())
