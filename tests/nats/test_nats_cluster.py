"""A leader that dies or hands over while messages are published and handled, through the bus."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import attrs
import pytest
from nats_kit import fresh_namespace, opened, until

import nats
from catga import Bus, Event, Node, NodeChange, QualityOfService, TransportError
from catga.engine.membership import Watch
from catga.ground.ids import new_instance
from catga.spi import Mode, NodeRecord
from catga_nats.testing import NatsCluster

COUNT = 1500
TROUBLE_AT = 500
LEASE = 10.0


@attrs.frozen
class Paid(Event):
    qos = QualityOfService.EXACTLY_ONCE
    number: int


@pytest.fixture(scope="module")
def nodes(binary: str | None) -> Iterator[NatsCluster]:
    with NatsCluster(binary) as running:
        yield running


@pytest.fixture
def cluster(nodes: NatsCluster) -> NatsCluster:
    nodes.start()  # whoever the law before left dead
    nodes.clear()
    return nodes


def bus_of(url: str, namespace: str, **more: Any) -> Bus:
    settings = {"replicas": 3, "publish_window": 128, "lease": LEASE, **more}
    return Bus(url, service="shop", namespace=namespace, settings=settings)


async def copies(url: str, namespace: str) -> Counter[bytes]:
    """How often each body is stored, as a client sees it that knows nothing of Catga."""
    client = await nats.connect(url.split(","), allow_reconnect=False)
    try:
        js = client.jetstream()
        state = (await js.stream_info(f"{namespace}-log")).state
        subscription = await js.subscribe(f"{namespace}.log.>", ordered_consumer=True)
        return Counter([(await subscription.next_msg(10)).data for _ in range(state.messages)])
    finally:
        await client.close()


async def publish_through(
    cluster: NatsCluster, namespace: str, url: str, trouble: Callable[[], object]
) -> None:
    """Publish and handle while `trouble` strikes: nothing accepted is lost or stored twice."""
    messages = [Paid(number) for number in range(COUNT)]
    handled: Counter[int] = Counter()
    bus = bus_of(url, namespace)

    @bus.handle(Paid)
    async def pay(message: Paid) -> None:
        handled[message.number] += 1

    def troubled() -> Iterator[Paid]:
        for number, message in enumerate(messages):
            if number == TROUBLE_AT:
                trouble()
            yield message

    async with bus:
        summary = await bus.publish_many(troubled())
        assert (summary.accepted, summary.failures) == (COUNT, ())
        again = await bus.publish_many(messages)
        assert (again.accepted, again.duplicates) == (COUNT, COUNT), "the ids were kept"
        # What a leader had handed out as it died comes again when its lease has ended.
        await until(lambda: len(handled) == COUNT, 4 * LEASE)
    await asyncio.to_thread(cluster.start)  # whoever was killed, so that the counting is sure
    stored = await copies(cluster.url, namespace)
    assert len(stored) == COUNT, "nothing accepted is lost"
    assert set(stored.values()) == {1}, "nothing is stored twice"
    assert set(handled.values()) == {1}, "no consumer crashed, so nothing is handled twice"


async def made(cluster: NatsCluster, namespace: str) -> str:
    """Let a bus make the streams; return the node that leads the log."""
    async with bus_of(cluster.url, namespace) as bus:
        await bus.publish(Paid(-1), message_id="first")
        assert (await bus.publish(Paid(-1), message_id="first")).duplicate
    async with asyncio.timeout(10):
        client = await nats.connect(cluster.url.split(","))
        await client.jetstream().purge_stream(f"{namespace}-log")
        await client.close()
    return await asyncio.to_thread(cluster.leader_of, f"{namespace}-log")


def test_a_leader_that_steps_down_costs_nothing(cluster: NatsCluster) -> None:
    async def law() -> None:
        namespace = fresh_namespace()
        stream = f"{namespace}-log"
        await made(cluster, namespace)
        await publish_through(cluster, namespace, cluster.url, lambda: cluster.step_down(stream))

    asyncio.run(law())


@pytest.mark.parametrize("window", ["600s", "none"])
def test_of_two_that_publish_one_id_at_once_both_are_told_that_it_is_stored(
    cluster: NatsCluster, window: str
) -> None:
    """While the servers agree on the first, the second is refused as "in process": not for good."""

    async def law() -> None:
        namespace = fresh_namespace()
        urls = [each.url for each in cluster.nodes.values()]
        one, two = (bus_of(url, namespace, dedupe_window=window) for url in urls[:2])
        async with one, two:
            for number in range(100):
                receipts = await asyncio.gather(
                    *(bus.publish(Paid(number), message_id=f"{number}") for bus in (one, two))
                )
                assert sorted(each.duplicate for each in receipts) == [False, True]
                assert len({each.sequence for each in receipts}) == 1

    asyncio.run(law())


@pytest.mark.parametrize("connected_to", ["the leader", "another"])
def test_a_leader_that_is_killed_costs_nothing_accepted(
    cluster: NatsCluster, connected_to: str
) -> None:
    async def law() -> None:
        namespace = fresh_namespace()
        stream = f"{namespace}-log"
        leader = await made(cluster, namespace)
        others = [name for name in cluster.nodes if name != leader]
        entry = leader if connected_to == "the leader" else others[0]
        killed: list[str] = []
        await publish_through(
            cluster,
            namespace,
            cluster.nodes[entry].url,  # the others are learnt from it
            lambda: killed.append(cluster.kill_leader(stream)),
        )
        assert killed == [leader]

    asyncio.run(law())


def test_a_bus_can_start_while_the_servers_elect(cluster: NatsCluster) -> None:
    """Nobody answers for JetStream until they have a leader again."""

    async def law() -> None:
        namespace = fresh_namespace()
        await made(cluster, namespace)
        leader = await asyncio.to_thread(cluster.meta_leader)
        await asyncio.to_thread(cluster.kill, leader)
        async with bus_of(cluster.url, namespace) as bus:
            assert not (await bus.publish(Paid(-1), message_id="without-it")).duplicate

    asyncio.run(law())


# ---- nodes


def node_of(url: str, namespace: str, name: str) -> Bus:
    settings = {"replicas": 3, "node_ttl": 60.0}
    return Bus(url, service="shop", namespace=namespace, node=Node(id=name), settings=settings)


def test_whichever_server_is_asked_shows_the_latest_of_every_node(cluster: NatsCluster) -> None:
    """A server that is not in charge of the stream may be behind: it is not believed then."""

    async def law() -> None:
        namespace = fresh_namespace()
        urls = [each.url for each in cluster.nodes.values()]
        one, two, three = (node_of(url, namespace, f"at-{n}") for n, url in enumerate(urls))
        async with one, two, three:
            for turn in range(1, 31):
                await one.discovery.heartbeat(load=float(turn))
                for bus in (one, two, three):
                    found = await bus.discovery.nodes()
                    assert [each.load for each in found] == [float(turn), 0.0, 0.0]

    asyncio.run(law())


def test_of_many_who_want_one_id_at_once_at_several_servers_one_gets_it(
    cluster: NatsCluster,
) -> None:
    """The others are refused by name, also while the servers agree on the first."""

    async def law() -> None:
        namespace = fresh_namespace()
        urls = [each.url for each in cluster.nodes.values()]
        async with AsyncExitStack() as stack:
            sides = [
                await stack.enter_async_context(opened(url, namespace, replicas=3)) for url in urls
            ]
            stores = [
                each.transport.node_store(namespace, 60.0, Mode.CREATE) for each in (*sides, *sides)
            ]
            for number in range(20):
                records = [NodeRecord(Node(id=f"n{number}"), new_instance(), 60.0) for _ in stores]
                won = await asyncio.gather(
                    *(store.register(each) for store, each in zip(stores, records, strict=True))
                )
                assert sorted(won) == [False] * 5 + [True]

    asyncio.run(law())


def test_a_leader_that_is_killed_is_no_nodes_end(cluster: NatsCluster) -> None:
    async def law() -> None:
        namespace = fresh_namespace()
        one, two = (node_of(cluster.url, namespace, name) for name in ("one", "two"))
        async with one, two, two.discovery.watch() as watch:
            assert len(await watch.receive(10)) == 2
            await asyncio.to_thread(cluster.kill_leader, f"KV_{namespace}-nodes")

            async def beats() -> bool:
                try:
                    await one.discovery.heartbeat(load=1.0)
                except TransportError:
                    return False
                return True

            await until(beats)
            async with node_of(cluster.url, namespace, "three"):
                told = [(change.kind.value, change.node.id) async for change in first_of(watch, 2)]
            assert sorted(told) == [("joined", "three"), ("updated", "one")]
        await asyncio.to_thread(cluster.start)

    asyncio.run(law())


async def first_of(watch: Watch, count: int) -> AsyncIterator[NodeChange]:
    async with asyncio.timeout(40):
        for _ in range(count):
            yield await anext(watch)
