"""Nodes on Redis: what stands there, that it heals, and what a heartbeat costs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis
from redis_kit import NAMESPACE, Lab, admin, lab, until

from catga import ChangeKind, Node
from catga.engine.discovery import Discovery, NodePace
from catga.ground.clock import SystemClock
from catga.ground.ids import new_instance
from catga.spi import EventKind, Mode
from catga_redis.testing import RedisServer

LONG = 60.0
INDEX, HINTS = f"{{{NAMESPACE}}}:nodes", f"{NAMESPACE}.nodes"
ROUNDS = 3


def key(name: str) -> str:
    return f"{{{NAMESPACE}}}:node:{name}"


@asynccontextmanager
async def bench(server: RedisServer) -> AsyncIterator[tuple[Lab, Redis]]:
    """A server without nodes."""
    async with lab(server) as here, admin(server) as outside:
        await outside.flushall()
        yield here, outside


async def process(here: Lab, ttl: float = LONG) -> Discovery:
    """One process: a connection and an owner of its own."""
    store = (await here.transport()).node_store(NAMESPACE, ttl, Mode.CREATE)
    pace = NodePace(ttl, ttl / 3)
    return Discovery(store, SystemClock(), pace, new_instance(), emit=here.events.append)


def node(name: str, **facts: Any) -> Node:
    return Node(id=name, service="tests", **facts)


async def listed(discovery: Discovery) -> list[str]:
    return [each.id for each in await discovery.nodes()]


def test_a_node_is_one_key_with_an_expiry_and_a_place_in_the_index(server: RedisServer) -> None:
    async def law() -> None:
        async with bench(server) as (here, outside):
            one = await process(here)
            await one.register(node("one"))
            assert sorted(await outside.keys("*")) == [key("one").encode(), INDEX.encode()]
            assert LONG * 900 < await outside.pttl(key("one")) <= LONG * 1000
            await outside.pexpire(key("one"), 1000)
            await one.heartbeat()
            assert await outside.pttl(key("one")) > LONG * 900
            await one.deregister()
            assert await outside.hkeys(key("one")) == [b"record", b"seen"], "it is remembered"
            assert 0 < await outside.pttl(key("one")) <= LONG * 1000

    asyncio.run(law())


def test_the_index_heals_in_both_directions(server: RedisServer) -> None:
    async def law() -> None:
        async with bench(server) as (here, outside):
            members = [await process(here) for _ in range(3)]
            for number, each in enumerate(members):
                await each.register(node(f"n-{number}"))
            await outside.delete(INDEX)
            assert await listed(members[0]) == []
            await members[1].heartbeat()
            assert await listed(members[0]) == ["n-1"], "a heartbeat puts it in again"
            await members[0].heartbeat()
            await outside.delete(key("n-1"))
            assert await listed(members[0]) == ["n-0"]
            assert await outside.zrange(INDEX, 0, -1) == [b"n-0"], "a snapshot drops what is gone"
            await outside.zadd(INDEX, {"long-gone": 1.0})
            await members[0].heartbeat()
            assert await outside.zrange(INDEX, 0, -1) == [b"n-0"], "so does a heartbeat"

    asyncio.run(law())


def test_more_nodes_than_one_script_takes_are_all_seen(server: RedisServer) -> None:
    async def law() -> None:
        async with bench(server) as (here, _):
            store = (await here.transport()).node_store(NAMESPACE, LONG, Mode.CREATE)
            names = [f"n-{number:04}" for number in range(700)]
            pace = NodePace(LONG, LONG / 3)
            members = [
                Discovery(store, SystemClock(), pace, new_instance(), emit=here.events.append)
                for _ in names
            ]
            await asyncio.gather(
                *(each.register(node(name)) for each, name in zip(members, names, strict=True))
            )
            assert await listed(members[0]) == names

    asyncio.run(law())


@pytest.mark.parametrize("wrong", ["garbage", "another type", "no owner", "no expiry", "no number"])
def test_what_is_no_node_is_passed_over(server: RedisServer, wrong: str) -> None:
    async def law() -> None:
        async with bench(server) as (here, outside):
            one = await process(here)
            await one.register(node("one"))
            record = await outside.hget(key("one"), "record")
            fields: dict[Any, Any] = {"owner": "x", "record": record, "seen": 1}
            if wrong == "another type":
                await outside.set(key("odd"), "x")
            else:
                fields |= {"record": b"\xff{"} if wrong == "garbage" else {}
                fields |= {"seen": "soon"} if wrong == "no number" else {}
                if wrong == "no owner":
                    del fields["owner"]
                await outside.hset(key("odd"), mapping=fields)
            if wrong != "no expiry":
                await outside.pexpire(key("odd"), 60_000)
            await outside.zadd(INDEX, {b"odd": 1e15, b"\xff": 1e15})
            assert await listed(one) == ["one"]
            assert await listed(one) == ["one"]
            said = [each.detail for each in here.events if each.kind is EventKind.TROUBLE]
            assert len(said) == (wrong in {"garbage", "no number", "another type"})

    asyncio.run(law())


def test_a_hint_from_a_stranger_is_only_a_look(server: RedisServer) -> None:
    async def law() -> None:
        async with bench(server) as (here, outside):
            one = await process(here)
            await one.register(node("one"))
            async with one.watch() as watch:
                assert [each.kind for each in await watch.receive(5)] == [ChangeKind.JOINED]
                await outside.publish(HINTS, b"\xff not a node")
                assert await watch.receive(0.3) == []
                await outside.delete(key("one"))
                await outside.publish(HINTS, b"")
                assert [each.kind for each in await watch.receive(5)] == [ChangeKind.EXPIRED]

    asyncio.run(law())


def test_a_watch_leaves_no_connection_behind(server: RedisServer) -> None:
    async def law() -> None:
        async with bench(server) as (here, outside):
            one = await process(here)
            before = len(await outside.client_list())
            for _ in range(3):
                async with one.watch():
                    assert len(await outside.client_list()) == before + 1

            async def closed() -> bool:
                return len(await outside.client_list()) == before

            await until(closed)

    asyncio.run(law())


# ---- what a heartbeat costs the server


async def counted(outside: Redis) -> tuple[dict[str, int], int, int]:
    """Calls by command, and bytes read and written; the asking itself comes on top."""
    stats: Mapping[str, Any] = await outside.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in stats.items()}
    traffic: Mapping[str, Any] = await outside.info("stats")
    return calls, traffic["total_net_input_bytes"], traffic["total_net_output_bytes"]


async def cost_of_a_heartbeat(server: RedisServer, count: int) -> tuple[dict[str, float], float]:
    """Return commands and bytes per heartbeat when so many nodes are there, and two watch."""
    async with bench(server) as (here, outside), AsyncExitStack() as stack:
        members = [await process(here) for _ in range(count)]
        for number, each in enumerate(members):
            await each.register(node(f"n-{number:04}", load=1.5))
        for each in members[:2]:
            watch = await stack.enter_async_context(each.watch())
            assert len(await watch.receive(5)) == count
        await members[0].heartbeat()  # the script is known
        idle = [await counted(outside) for _ in range(2)]
        for _ in range(ROUNDS):
            await asyncio.gather(*(each.heartbeat() for each in members))
        after = await counted(outside)
        beats = ROUNDS * count
        asking = sum(idle[1][1:]) - sum(idle[0][1:])
        calls = {
            name: (calls - idle[1][0].get(name, 0)) / beats
            for name, calls in after[0].items()
            if name not in {"info", "ping"} and calls > idle[1][0].get(name, 0)
        }
        return calls, (sum(after[1:]) - sum(idle[1][1:]) - asking) / beats


def test_a_heartbeat_costs_the_server_the_same_among_10_100_and_200_nodes(
    own_server: RedisServer,
) -> None:
    async def law() -> None:
        costs = {count: await cost_of_a_heartbeat(own_server, count) for count in (10, 100, 200)}
        logging.getLogger(__name__).info("a heartbeat: %s", costs)  # pytest -rP shows it
        calls, size = costs[10]
        assert set(calls) == {
            "evalsha",
            "hget",
            "time",
            "hset",
            "pexpire",
            "zadd",
            "zremrangebyscore",
        }, "one script, no notification, no look through others"
        assert set(calls.values()) == {1.0}
        for other_calls, other_size in costs.values():
            assert other_calls == calls, costs
            assert abs(other_size - size) < 0.15 * size, costs

    asyncio.run(law())
