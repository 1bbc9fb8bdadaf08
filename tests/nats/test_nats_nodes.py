"""Nodes on NATS: the bucket they stand in, that it heals, and what a heartbeat costs."""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from nats_kit import Opened, opened, until

from catga import CapabilityError, ChangeKind, ConfigurationError, Node, PayloadTooLarge
from catga.engine.discovery import Discovery, NodePace
from catga.ground.clock import SystemClock
from catga.ground.ids import new_instance
from catga.spi import Capability, EventKind, Mode
from catga.testing import free_port
from catga_nats.bucket import Bucket
from catga_nats.testing import NatsServer

LONG = 60.0
ROUNDS = 3


def process(one: Opened, ttl: float = LONG, mode: Mode = Mode.CREATE) -> Discovery:
    """One process: an owner of its own."""
    store = one.transport.node_store(one.namespace, ttl, mode)
    pace = NodePace(ttl, ttl / 3)
    return Discovery(store, SystemClock(), pace, new_instance(), emit=one.events.append)


def node(name: str, **facts: Any) -> Node:
    return Node(id=name, service="tests", **facts)


async def listed(discovery: Discovery) -> list[str]:
    return [each.id for each in await discovery.nodes()]


def stream(one: Opened) -> str:
    return f"KV_{one.namespace}-nodes"


def test_the_bucket_is_one_that_any_kv_client_reads(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as one:
            first, second = process(one), process(one)
            await first.register(node("first", metadata={"zone": "b"}))
            await second.register(node("second"))
            config = (await one.ask(f"STREAM.INFO.{stream(one)}"))["config"]
            wanted = {"max_msgs_per_subject": 10, "storage": "file", "max_age": int(LONG * 1e9)}
            assert {name: config[name] for name in wanted} == wanted
            bucket = await one.client.jetstream().key_value(f"{one.namespace}-nodes")
            assert sorted(await bucket.keys()) == ["first", "second"]
            entry = await bucket.get("first")
            assert json.loads(entry.value or b"")["metadata"] == {"zone": "b"}
            await second.deregister()
            assert await bucket.keys() == ["first"]
            assert await listed(first) == ["first"]
            await bucket.delete("first")
            assert await listed(first) == [], "an operator has said good-bye for it"

    asyncio.run(law())


def test_a_longer_lease_makes_the_bucket_keep_nodes_longer(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as one:
            ages = []
            for ttl in (2.0, 30.0, 5.0):
                await process(one, ttl).register(node(f"ttl-{ttl:.0f}"))
                info = await one.ask(f"STREAM.INFO.{stream(one)}")
                ages.append(info["config"]["max_age"] / 1e9)
            assert ages == [2.0, 30.0, 30.0]

    asyncio.run(law())


def test_who_may_not_create_does_not(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as one:
            careful = process(one, mode=Mode.VERIFY)
            assert await careful.nodes() == (), "looking creates nothing"
            with pytest.raises(ConfigurationError, match=f"{one.namespace}-nodes"):
                await careful.register(node("one"))
            await process(one).register(node("two"))
            await careful.register(node("one"))
            assert await listed(careful) == ["one", "two"]

    asyncio.run(law())


def test_a_bucket_that_was_deleted_is_made_again_by_a_heartbeat(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as one:
            kept = process(one, 1.5)
            await kept.register(node("one"))
            keeping = asyncio.create_task(kept.keep())
            await one.ask(f"STREAM.DELETE.{stream(one)}")

            async def back() -> bool:
                return await listed(kept) == ["one"]

            await until(back)
            assert any("nobody stores" in words for words in one.told(EventKind.TROUBLE))
            await kept.deregister()
            keeping.cancel()

    asyncio.run(law())


HUGE = b'{"id":"b","service":"s","address":"","load":1%b,"metadata":{},"started":' % (b"0" * 400)
HUGE += b'"2026-01-01T00:00:00+00:00","owner":"o","ttl":9}'


@pytest.mark.parametrize("body", [b"{}", b"\xff{", b"[]", b'{"id":"two"}', HUGE])
def test_what_is_no_node_is_passed_over(server: NatsServer, body: bytes) -> None:
    async def law() -> None:
        async with opened(server.url) as one:
            first = process(one)
            await first.register(node("one"))
            await one.client.jetstream().publish(f"$KV.{one.namespace}-nodes.odd", body)
            await one.client.jetstream().publish(f"$KV.{one.namespace}-nodes.a.b", body)
            assert await listed(first) == ["one"]
            assert await listed(first) == ["one"]
            told = [words for words in one.told(EventKind.TROUBLE) if "holds no node" in words]
            assert len(told) == 2, "each is told once"
            await process(one).register(node("odd"))
            assert await listed(first) == ["odd", "one"], "and is in nobody's way"

    asyncio.run(law())


def test_many_nodes_are_read_whole_whichever_way_it_takes(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def law(count: int) -> None:
        async with opened(server.url) as one:
            members = [process(one) for _ in range(count)]
            names = [f"n-{number:05}" for number in range(count)]
            for start in range(0, count, 200):
                part = zip(members[start : start + 200], names[start:], strict=False)
                await asyncio.gather(*(each.register(node(name)) for each, name in part))
            assert await listed(members[0]) == names
            await members[0].deregister()
            assert await listed(members[0]) == names[1:]
            store: Any = members[0]._store
            assert await store._bucket._read_at_once(10**9) is None, (
                "no copy that is behind is believed"
            )

    asyncio.run(law(1100))  # more than the server hands out at once

    async def stale(self: Bucket, sequence: int) -> None:
        return None  # an answer of a copy that is behind

    monkeypatch.setattr(Bucket, "_read_at_once", stale)
    asyncio.run(law(20))


def test_without_jetstream_there_is_no_discovery_and_a_reason() -> None:
    async def law() -> None:
        with NatsServer(jetstream=False) as plain:
            async with opened(plain.url) as one:
                assert Capability.DISCOVERY not in one.transport.capabilities
                with pytest.raises(CapabilityError, match="JetStream is off"):
                    process(one)

    asyncio.run(law())


def test_a_node_that_says_too_much_is_refused_and_costs_no_connection() -> None:
    async def law() -> None:
        with NatsServer(config="max_payload: 1024") as narrow:
            async with opened(narrow.url) as one:
                metadata = {f"k{number}": "x" * 100 for number in range(10)}
                with pytest.raises(PayloadTooLarge):
                    await process(one).register(node("one", metadata=metadata))
                await process(one).register(node("one"))
                assert one.told(EventKind.DISCONNECTED) == []

    asyncio.run(law())


def test_a_watch_leaves_no_subscription_behind(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as one:
            looking = process(one)
            before = len(one.client._subs)
            for _ in range(3):
                async with looking.watch():
                    assert len(one.client._subs) == before + 1
            assert len(one.client._subs) == before
            assert one.transport._connection is not None
            assert len(one.transport._connection.on_reconnected) == 1

    asyncio.run(law())


def test_a_heartbeat_that_is_not_answered_is_not_held_against_the_node(server: NatsServer) -> None:
    """The revision a node remembers is older than its own last one then."""

    async def law() -> None:
        async with opened(server.url) as one:
            first = process(one)
            await first.register(node("one"))
            store: Any = first._store
            sequence, holds = store._written["one"]
            await first.heartbeat(load=1.0)
            store._written["one"] = sequence, holds
            await first.heartbeat(load=2.0)
            assert [each.load for each in await first.nodes()] == [2.0]
            async with first.watch() as watch:
                (joined,) = await watch.receive(5)
                assert joined.kind is ChangeKind.JOINED

    asyncio.run(law())


# ---- what a heartbeat costs the server


@asynccontextmanager
async def observed(binary: str | None) -> AsyncIterator[tuple[str, str]]:
    """A server that counts for us: its address, and where it tells."""
    port = free_port()
    with NatsServer(binary, config=f"http: 127.0.0.1:{port}") as running:
        yield running.url, f"http://127.0.0.1:{port}/varz"


async def counted(where: str) -> dict[str, int]:
    """What went in and out of the server so far."""

    def ask() -> Any:
        with urllib.request.urlopen(where, timeout=5) as answer:
            return json.load(answer)

    varz = await asyncio.to_thread(ask)
    return {name: varz[name] for name in ("in_msgs", "out_msgs", "in_bytes", "out_bytes")}


async def cost_of_a_heartbeat(url: str, where: str, count: int) -> dict[str, float]:
    """Return messages and bytes per heartbeat when so many nodes are there, and two watch."""
    async with AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(opened(url, f"cost-{count}")) for _ in range(5)
        ]
        members = [process(processes[number % 5]) for number in range(count)]
        for number, each in enumerate(members):
            await each.register(node(f"n-{number:04}", load=1.5))
        for each in members[:2]:
            watch = await stack.enter_async_context(each.watch())
            assert len(await watch.receive(5)) == count
        before = await counted(where)
        for _ in range(ROUNDS):
            await asyncio.gather(*(each.heartbeat() for each in members))
        after = await counted(where)
        return {name: (after[name] - before[name]) / (ROUNDS * count) for name in after}


def test_a_heartbeat_costs_the_server_the_same_among_10_100_and_200_nodes(
    binary: str | None,
) -> None:
    async def law() -> None:
        async with observed(binary) as (url, where):
            costs = {n: await cost_of_a_heartbeat(url, where, n) for n in (10, 100, 200)}
        logging.getLogger(__name__).info("a heartbeat: %s", costs)  # pytest -rP shows it
        for cost in costs.values():
            # A ping of a connection may come in between.
            assert 1.0 <= cost["in_msgs"] < 1.05, "one message"
            assert 1.0 <= cost["out_msgs"] < 1.05, "one confirmation, and nobody else hears of it"
            for name in ("in_bytes", "out_bytes"):
                assert abs(cost[name] - costs[10][name]) < 0.15 * costs[10][name], costs

    asyncio.run(law())
