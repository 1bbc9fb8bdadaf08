"""Laws of trimming: what is settled by all and old enough goes, and nothing else ever does."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis
from redis_kit import NAMESPACE, Lab, accepted, admin, gather_deliveries, lab, out, topology, until

from catga.spi import (
    Ack,
    Delivery,
    Done,
    Kind,
    Mode,
    Nack,
    Settle,
    Source,
    Subscription,
)
from catga_redis.testing import RedisServer

QUICK = timedelta(seconds=0.05)
YOUNG = 0.3
"""Seconds of retention, and of W."""


async def member_of(
    bench: Lab, type_: str, group: str, keep: float = YOUNG, reclaim: timedelta = QUICK
) -> Subscription:
    """A member whose trimmer is quick."""
    transport = await bench.transport(reclaim_interval=reclaim, trim_interval=QUICK)
    source = Source(NAMESPACE, type_, group, durable=True)
    await transport.prepare(topology(source, window=YOUNG, retention=keep), Mode.CREATE)
    return await transport.subscribe(source)


async def settle(subscription: Subscription, found: list[Delivery]) -> None:
    results = await subscription.settle([Settle(each, Ack(), confirm=True) for each in found])
    assert results == [Done()] * len(found)


async def bodies(client: Redis, key: str) -> list[bytes]:
    entries: Any = await client.xrange(key)
    return [fields[b"b"] for _, fields in entries]


def test_what_all_groups_settled_is_trimmed_and_what_one_did_not_stays(
    server: RedisServer,
) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            quick = await member_of(bench, "Trim", "quick")
            slow = await member_of(bench, "Trim", "slow")
            publisher = await bench.transport()
            key = "{law:Trim}:log:0"
            sent = [str(number).encode() for number in range(500)]
            accepted(await publisher.publish([out("Trim", body) for body in sent]))
            await settle(quick, await gather_deliveries(quick, 500))
            found = await gather_deliveries(slow, 500)
            await settle(slow, [each for each in found if each.body != b"300"])
            await until(lambda: _length(client, key, 200))
            assert await bodies(client, key) == sent[300:], "from the unsettled one on"
            (kept,) = [each for each in found if each.body == b"300"]
            assert await slow.settle([Settle(kept, Nack(0.5))]) == [Done()]
            (again,) = await gather_deliveries(slow, 1)
            assert again.body == b"300", "given back is not settled"
            await settle(slow, [again])
            await until(lambda: _length(client, key, 1))  # where the groups are
            accepted(await publisher.publish([out("Trim", b"after")]))
            assert [each.body for each in await gather_deliveries(slow, 1)] == [b"after"]

    asyncio.run(law())


async def _length(client: Redis, key: str, wanted: int) -> bool:
    return bool(await client.xlen(key) == wanted)


def test_a_group_that_has_not_read_yet_holds_everything(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            quick = await member_of(bench, "Unread", "quick")
            publisher = await bench.transport()
            later = Source(NAMESPACE, "Unread", "later", durable=True)
            await publisher.prepare(topology(later, window=YOUNG, retention=YOUNG), Mode.CREATE)
            accepted(await publisher.publish([out("Unread") for _ in range(300)]))
            await settle(quick, await gather_deliveries(quick, 300))
            await asyncio.sleep(3 * YOUNG)
            assert await client.xlen("{law:Unread}:log:0") == 300
            await client.xgroup_destroy("{law:Unread}:log:0", "later")  # whom nobody waits for
            await until(lambda: _length(client, "{law:Unread}:log:0", 1))

    asyncio.run(law())


@pytest.mark.parametrize("kept", ["inf", "60000"])
def test_the_longest_retention_holds(server: RedisServer, kept: str) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            type_ = f"Keep{kept}"
            quick = await member_of(bench, type_, "quick")
            await client.hset(f"{{law:{type_}}}:retention", "archive", kept)
            publisher = await bench.transport()
            accepted(await publisher.publish([out(type_) for _ in range(3)]))
            await settle(quick, await gather_deliveries(quick, 3))
            await asyncio.sleep(3 * YOUNG)
            assert await client.xlen(f"{{law:{type_}}}:log:0") == 3
            await client.hdel(f"{{law:{type_}}}:retention", "archive")
            await until(lambda: _length(client, f"{{law:{type_}}}:log:0", 1))

    asyncio.run(law())


def test_what_is_young_stays_though_all_have_settled_it(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            quick = await member_of(bench, "Young", "quick", keep=60.0)
            publisher = await bench.transport()
            accepted(await publisher.publish([out("Young") for _ in range(3)]))
            await settle(quick, await gather_deliveries(quick, 3))
            await asyncio.sleep(3 * YOUNG)
            assert await client.xlen("{law:Young}:log:0") == 3

    asyncio.run(law())


def test_an_ephemeral_group_whose_process_died_holds_nothing_for_ever(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            key = "{law:Ghost}:log:0"
            await client.xgroup_create(key, "ghost-0", "0", mkstream=True)
            await client.zadd("{law:Ghost}:ephemeral", {"ghost-0": 0})
            await client.xgroup_create(key, "stranger", "0")
            monkeypatch.setattr("catga_redis.trimming.ABANDONED_MS", 300)
            quick = await member_of(bench, "Ghost", "quick")

            async def groups() -> set[bytes]:
                return {each["name"] for each in await client.xinfo_groups(key)}

            async def ended() -> bool:
                return b"ghost-0" not in await groups()

            await until(ended)
            assert await groups() == {b"stranger", b"quick"}, "who is not known stays"
            assert not await client.exists("{law:Ghost}:ephemeral")
            del quick

    asyncio.run(law())


def test_own_streams_are_trimmed_and_dead_letters_never(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            own = await member_of(bench, "OwnStreams", "workers")
            publisher = await bench.transport()
            kinds = (Kind.TO, Kind.REDO, Kind.DEAD)
            accepted(
                await publisher.publish(
                    [
                        out("OwnStreams", kind.value.encode(), kind=kind, group="workers")
                        for kind in kinds
                        for _ in range(3)
                    ]
                )
            )
            await settle(own, await gather_deliveries(own, 6))
            await until(lambda: _length(client, "{law:OwnStreams}:to:workers", 1))
            await until(lambda: _length(client, "{law:OwnStreams}:redo:workers", 1))
            assert await client.xlen("{law:OwnStreams}:dead:workers") == 3

    asyncio.run(law())


def test_a_member_that_always_has_to_reclaim_trims_too(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            # One reclaim takes longer than what lies between two: as behind a slow disk.
            busy = await member_of(bench, "Busy", "quick", reclaim=timedelta(microseconds=1))
            publisher = await bench.transport()
            accepted(await publisher.publish([out("Busy") for _ in range(3)]))
            await settle(busy, await gather_deliveries(busy, 3))
            await until(lambda: _length(client, "{law:Busy}:log:0", 1))

    asyncio.run(law())
