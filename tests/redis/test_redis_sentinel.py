"""Servers found through Sentinel: the bus follows whoever is in charge."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import attrs
import pytest
from redis.asyncio import Redis
from redis_kit import NAMESPACE, until

from catga import Bus, Event, QualityOfService
from catga.errors import (
    AuthenticationError,
    CapabilityError,
    CatgaError,
    ConfigurationError,
    ConnectionLost,
)
from catga.ground.ids import new_message_id
from catga.spi import Start
from catga_redis.testing import RedisSentinel


@attrs.frozen
class Paid(Event):
    qos = QualityOfService.EXACTLY_ONCE
    number: int


@pytest.fixture(scope="module")
def sentinel(binary: str | None) -> Iterator[RedisSentinel]:
    with RedisSentinel(binary) as running:
        yield running


def bus_of(url: str, **more: object) -> Bus:
    return Bus(url, service="shop", namespace=NAMESPACE, settings=more)


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("", ConfigurationError, "must name its primary"),
        ("/orders/first", ConfigurationError, "must be a database number"),
        ("/nobody", ConnectionLost, "knows no primary called 'nobody'"),
    ],
)
def test_a_primary_that_cannot_be_found_is_said(
    sentinel: RedisSentinel, path: str, kind: type[CatgaError], words: str
) -> None:
    async def law() -> None:
        host = sentinel.url.rpartition("/")[0]
        bus = bus_of(f"{host}{path}", connect_deadline=3.0)
        with pytest.raises(kind, match=words):
            await bus.__aenter__()

    asyncio.run(law())


def test_what_is_no_sentinel_or_a_sentinel_is_said(sentinel: RedisSentinel) -> None:
    async def law() -> None:
        server = sentinel.pair.primary.port
        with pytest.raises(ConfigurationError, match="is no sentinel"):
            await bus_of(f"redis+sentinel://127.0.0.1:{server}/orders").__aenter__()
        itself = sentinel.sentinel.port
        with pytest.raises(CapabilityError, match="is a sentinel: use redis"):
            await bus_of(f"redis://127.0.0.1:{itself}").__aenter__()

    asyncio.run(law())


def test_a_killed_primary_is_replaced_and_nothing_replicated_is_lost(
    sentinel: RedisSentinel,
) -> None:
    """One sentinel of the list is not there: the next one is asked."""

    async def law() -> None:
        handled: Counter[int] = Counter()
        hosts = f"127.0.0.1:1,127.0.0.1:{sentinel.sentinel.port}"
        bus = bus_of(f"redis+sentinel://{hosts}/orders/0", publish_deadline=60, lease=5)
        held = asyncio.Event()

        @bus.handle(Paid, start=Start.BEGINNING)
        async def pay(message: Paid) -> None:
            if message.number >= 50:
                await held.wait()
            handled[message.number] += 1

        async with bus:
            for number in range(100):
                await bus.publish(Paid(number))
            await until(lambda: len(handled) == 50)
            assert await asyncio.to_thread(sentinel.pair.replicated)
            await asyncio.to_thread(sentinel.kill_primary)
            # Published while nobody is in charge: it waits, and is stored once.
            waiting = asyncio.create_task(bus.publish(Paid(100), message_id=new_message_id()))
            await asyncio.to_thread(sentinel.promoted)
            assert not (await waiting).duplicate
            held.set()
            await until(lambda: len(handled) == 101, 30.0)
        assert set(handled) == set(range(101))

    asyncio.run(law())


def test_the_passwords_of_the_sentinel_and_of_the_server_are_two(
    sentinel: RedisSentinel,
) -> None:
    async def law() -> None:
        async with Redis(port=sentinel.sentinel.port) as client:
            await client.acl_setuser(
                "default", enabled=True, reset_passwords=True, passwords=["+quiet"]
            )
        with pytest.raises(AuthenticationError, match="sentinel_password") as caught:
            await bus_of(sentinel.url).__aenter__()
        assert "quiet" not in str(caught.value)
        async with bus_of(sentinel.url, sentinel_password="quiet") as bus:
            await bus.publish(Paid(1))

    asyncio.run(law())
