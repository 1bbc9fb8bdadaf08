"""A leader that dies or hands over while messages are published and handled, through the bus."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator

import attrs
import pytest
from nats_kit import fresh_namespace, until

import nats
from catga import Bus, Event, QualityOfService
from catga_nats.testing import NatsCluster

COUNT = 1500
TROUBLE_AT = 500


@attrs.frozen
class Paid(Event):
    qos = QualityOfService.EXACTLY_ONCE
    number: int


@pytest.fixture(scope="module")
def cluster(binary: str | None) -> Iterator[NatsCluster]:
    with NatsCluster(binary) as running:
        yield running


def bus_of(url: str, namespace: str) -> Bus:
    settings = {"replicas": 3, "publish_window": 128}
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
        await until(lambda: len(handled) == COUNT)
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
