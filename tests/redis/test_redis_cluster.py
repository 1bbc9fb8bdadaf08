"""Redis Cluster: types whose owners differ, slots that move, owners that die."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import attrs
import pytest
from redis_kit import Lab
from redis_kit import until as until_within

from catga import Bus, Event, QualityOfService, Request
from catga.errors import CapabilityError, CatgaError, ConfigurationError, NoResponders
from catga.spi import Address, Start
from catga_redis.slots import cut
from catga_redis.testing import RedisCluster, RedisServer
from catga_redis.wire import pack_command
from redis import Redis


@attrs.frozen
class Paid(Event):
    qos = QualityOfService.EXACTLY_ONCE
    number: int


@attrs.frozen
class Shipped(Event):
    qos = QualityOfService.AT_LEAST_ONCE
    number: int


@attrs.frozen
class Seen(Event):
    qos = QualityOfService.AT_MOST_ONCE
    number: int


@attrs.frozen
class Asked(Request[int]):
    __slots__ = ()
    qos = QualityOfService.AT_MOST_ONCE
    number: int


KINDS = (Paid, Shipped, Seen)


@pytest.fixture(scope="module")
def cluster(binary: str | None) -> Iterator[RedisCluster]:
    with RedisCluster(binary) as running:
        yield running


@pytest.fixture
def own_cluster(binary: str | None) -> Iterator[RedisCluster]:
    with RedisCluster(binary, replica=True) as running:
        yield running


async def until(condition: Callable[[], Awaitable[bool]] | Callable[[], bool]) -> None:
    """Wait; longer than a lease, for what a move or a failover interrupts may wait for one."""
    await until_within(condition, 45.0)


def bus_of(url: str, namespace: str, **more: object) -> Bus:
    settings = {"publish_deadline": 60, "reclaim_interval": 0.1, **more}
    return Bus(url, service="shop", namespace=namespace, settings=settings)


def stream(namespace: str, kind: type) -> str:
    return f"{{{namespace}:{kind.__name__}}}:log:0"


def at(node: RedisServer, *command: Any) -> Any:
    with Redis(port=node.port) as client:
        return client.execute_command(*command)


def stored(cluster: RedisCluster, key: str) -> int:
    return int(at(cluster.owner_of(key), "XLEN", key))


async def settled(cluster: RedisCluster, key: str) -> bool:
    (group,) = await asyncio.to_thread(lambda: at(cluster.owner_of(key), "XINFO", "GROUPS", key))
    words = dict(zip(group[::2], group[1::2], strict=True)) if isinstance(group, list) else group
    pending = words.get("pending", words.get(b"pending"))
    lag = words.get("lag", words.get(b"lag"))
    return not pending and not lag


def counted(bus: Bus, *kinds: type[Event]) -> dict[type, Counter[int]]:
    """Have the bus count what it handles."""
    found: dict[type, Counter[int]] = {kind: Counter() for kind in kinds}

    def listen(kind: type[Event]) -> None:
        @bus.handle(kind)
        async def count(message: Any) -> None:
            found[kind][message.number] += 1

    for kind in kinds:
        listen(kind)
    return found


def bounded(law: Callable[[], Awaitable[None]], seconds: float = 120.0) -> None:
    async def run() -> None:
        async with asyncio.timeout(seconds):
            await law()

    asyncio.run(run())


def test_types_of_different_owners_keep_each_their_quality_and_go_with_their_namespace(
    cluster: RedisCluster,
) -> None:
    async def law() -> None:
        streams = [stream("law", kind) for kind in KINDS]
        assert len({cluster.owner_of(key).port for key in streams}) == 3, "choose other names"
        bus = bus_of(cluster.url, "law")
        found = counted(bus, *KINDS)

        @bus.handle(Asked)
        async def answer(message: Asked) -> int:
            return message.number * 2

        async with bus:
            messages = [kind(number) for number in range(300) for kind in KINDS]
            summary = await bus.publish_many(messages)
            assert (summary.accepted, summary.failures) == (900, ())
            again = [message for message in messages if isinstance(message, Paid)]
            assert (await bus.publish_many(again)).duplicates == 300
            assert await bus.request(Asked(21)) == 42
            await until(lambda: all(len(found[kind]) == 300 for kind in KINDS))
            await until(lambda: settled(cluster, streams[0]))
        assert all(set(counts.values()) == {1} for counts in found.values())
        assert (stored(cluster, streams[0]), stored(cluster, streams[1])) == (300, 300)
        bench = Lab(address_of(cluster))
        try:
            await (await bench.transport()).remove("law")
        finally:
            await bench.close()
        assert [at(node, "DBSIZE") for node in cluster.nodes] == [0, 0, 0]

    bounded(law)


def _more_than(found: list[int], count: int) -> bool:
    return len(found) > count


def _was_told(cluster: RedisCluster, error: str) -> bool:
    return any(f"errorstat_{error}" in at(node, "INFO", "errorstats") for node in cluster.nodes)


def address_of(cluster: RedisCluster) -> Address:
    return Address("redis+cluster", tuple(("127.0.0.1", node.port) for node in cluster.nodes))


def test_a_request_that_nobody_hears_is_said_wherever_it_is_published(
    cluster: RedisCluster,
) -> None:
    """Plain Pub/Sub would count the listeners of one server only."""

    async def law() -> None:
        bus = bus_of(cluster.url, "deaf")
        async with bus:
            with pytest.raises(NoResponders):
                await bus.request(Asked(1))

    bounded(law)


def test_a_slot_that_moves_with_what_is_in_it_loses_and_doubles_nothing(
    cluster: RedisCluster,
) -> None:
    """Its keys are half here and half there for a while, and publishing and handling go on."""

    async def law() -> None:
        bus = bus_of(cluster.url, "moving")
        found = counted(bus, Paid, Shipped, Seen)
        done = asyncio.Event()
        published: list[int] = []

        async def publish() -> None:
            number = 0
            while not done.is_set():
                part = range(number, number + 20)
                number += 20
                messages = [kind(each) for each in part for kind in (Paid, Shipped)]
                summary = await bus.publish_many(messages)
                assert summary.failures == ()
                published.extend(part)

        async with bus:
            publishing = asyncio.create_task(publish())
            await until(lambda: len(published) > 100)
            loop = asyncio.get_running_loop()

            def more_is_published() -> None:
                """Wait, in the thread: what has one key is stored on either side of a move."""
                more = until(partial(_more_than, published, len(published)))
                asyncio.run_coroutine_threadsafe(more, loop).result()

            def it_was_put_off() -> None:
                """Wait likewise: a script over keys that are on both sides is told to try again."""
                told = until(partial(_was_told, cluster, "TRYAGAIN"))
                asyncio.run_coroutine_threadsafe(told, loop).result()

            for kind, meanwhile in ((Shipped, more_is_published), (Paid, it_was_put_off)):
                key = stream("moving", kind)
                await asyncio.to_thread(cluster.move, key, meanwhile=meanwhile)
            assert _was_told(cluster, "ASK")
            assert _was_told(cluster, "MOVED")
            moved = len(published)
            await until(lambda: len(published) > moved + 200)
            done.set()
            await publishing
            for kind in (Paid, Shipped):
                await until(lambda kind=kind: len(found[kind]) == len(published))
                await until(lambda kind=kind: settled(cluster, stream("moving", kind)))
        assert stored(cluster, stream("moving", Paid)) == len(published), "stored twice, or lost"
        assert stored(cluster, stream("moving", Shipped)) == len(published)
        assert set(found[Paid].values()) == {1}
        assert set(found[Paid]) == set(found[Shipped]) == set(published)

    bounded(law)


def test_who_listens_at_qos_0_follows_its_slot(cluster: RedisCluster) -> None:
    async def law() -> None:
        bus = bus_of(cluster.url, "heard")
        found = counted(bus, Seen)

        async with bus:
            await bus.publish(Seen(0))
            await until(lambda: found[Seen][0] == 1)
            await asyncio.to_thread(cluster.move, stream("heard", Seen))
            number = 0

            async def heard() -> bool:
                nonlocal number
                number += 1
                await bus.publish(Seen(number))
                await asyncio.sleep(0.05)
                return bool(found[Seen][number])

            await until(heard)
            assert set(found[Seen].values()) <= {0, 1}

    bounded(law)


def test_an_owner_that_is_killed_is_replaced_and_nothing_replicated_is_lost(
    own_cluster: RedisCluster,
) -> None:
    cluster = own_cluster

    async def law() -> None:
        key = stream("law", Paid)
        assert cluster.owner_of(key) is cluster.nodes[0]
        bus = bus_of(cluster.url, "law", lease=5)
        handled: Counter[int] = Counter()
        held = asyncio.Event()
        others = counted(bus, Shipped)[Shipped]

        @bus.handle(Paid, start=Start.BEGINNING)
        async def pay(message: Paid) -> None:
            if message.number >= 50:
                await held.wait()
            handled[message.number] += 1

        async with bus:
            messages = [Shipped(0), *(Paid(number) for number in range(100))]
            assert (await bus.publish_many(messages)).accepted == 101
            await until(lambda: len(handled) == 50)
            await asyncio.to_thread(cluster.replicated)
            await asyncio.to_thread(cluster.kill_owner, key)
            # Published while nobody owns the slot: it waits, and is stored once.
            waiting = asyncio.create_task(bus.publish_many([Paid(100), Shipped(1)]))
            await asyncio.to_thread(cluster.promoted)
            summary = await waiting
            assert summary.failures == ()
            assert (summary.accepted, summary.duplicates) == (2, 0)
            held.set()
            await until(lambda: len(handled) == 101 and others[1] == 1)
            await until(lambda: settled(cluster, key))
        assert set(handled) == set(range(101))
        assert stored(cluster, key) == 101

    bounded(law)


def test_a_planned_hand_over_costs_nothing(own_cluster: RedisCluster) -> None:
    cluster = own_cluster

    async def law() -> None:
        bus = bus_of(cluster.url, "law")
        found = counted(bus, Paid, Shipped)
        async with bus:
            messages = [kind(number) for number in range(1000) for kind in (Paid, Shipped)]
            publishing = asyncio.create_task(bus.publish_many(messages))
            await until(lambda: len(found[Paid]) > 50)
            await asyncio.to_thread(cluster.fail_over)
            summary = await publishing
            assert (summary.accepted, summary.failures) == (2000, ())
            await until(lambda: len(found[Paid]) == len(found[Shipped]) == 1000)
            await until(lambda: settled(cluster, stream("law", Paid)))
        assert stored(cluster, stream("law", Paid)) == 1000
        assert set(found[Paid].values()) == {1}

    bounded(law)


def test_a_url_of_the_wrong_kind_is_refused_in_one_line(
    cluster: RedisCluster, server: RedisServer
) -> None:
    """The reverse, `redis://` on a cluster, is a law of the doors."""

    async def law() -> None:
        for url, kind, words in (
            (f"redis+cluster://127.0.0.1:{server.port}", CapabilityError, "use redis://host"),
            (cluster.url + "/3", ConfigurationError, "names a database"),
        ):
            with pytest.raises(kind, match=words) as caught:
                await bus_of(url, "law").__aenter__()
            assert isinstance(caught.value, CatgaError)
            assert "\n" not in str(caught.value)

    bounded(law)


def test_of_the_hosts_given_one_that_answers_is_enough(cluster: RedisCluster) -> None:
    async def law() -> None:
        hosts = f"127.0.0.1:1,127.0.0.1:{cluster.nodes[1].port}"
        async with bus_of(f"redis+cluster://{hosts}", "seed") as bus:
            await bus.publish(Paid(1))

    bounded(law)


def test_commands_that_left_together_can_be_told_apart() -> None:
    commands = [(b"GET", b"a\r\n*1"), (b"SET", b"b", b"", b"PX", 5), (b"PING",)]
    packed = [pack_command(command) for command in commands]
    assert cut(b"".join(packed)) == packed
    assert cut(b"") == []
