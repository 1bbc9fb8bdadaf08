"""A connection that misbehaves between the bus and a real broker, at QoS 2."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Literal
from urllib.parse import urlsplit

import attrs
import pytest

from bus.bus_kit import Once, Place, eventually, keep, run
from catga import Bus
from catga.spi import Kind, Start
from catga.testing import FaultProxy

Strike = Callable[[FaultProxy], Coroutine[Any, Any, None]]
IMPATIENT: dict[str, dict[str, object]] = {
    "nats": {"ping_interval": 0.4, "publish_ack_timeout": 0.4},
    "redis": {"reply_timeout": 0.5, "block_time": 0.2, "reclaim_interval": 0.1},
}
"""A silence is noticed soon."""
BATCH = 20


@attrs.frozen
class Shaky:
    """A place whose connections go through a proxy."""

    place: Place
    proxy: FaultProxy

    def bus(self, **settings: object) -> Bus:
        port = urlsplit(self.place.url).port
        url = self.place.url.replace(f":{port}", f":{self.proxy.port}")
        given = {**IMPATIENT[self.place.kind], "lease": 1.0, "backoff_base": 0.01, **settings}
        return Bus(url, service="tests", namespace=self.place.namespace, settings=given)

    async def copies(self) -> Counter[bytes]:
        async with self.place.outside() as outside:
            return Counter(await outside.stored(outside.subject(Kind.LOG, "Once")))

    async def nothing_left(self) -> bool:
        async with self.place.outside() as outside:
            return await outside.unsettled("Once", "tests") == 0


@asynccontextmanager
async def shaky(place: Place) -> AsyncIterator[Shaky]:
    port = urlsplit(place.url).port
    assert port is not None
    async with FaultProxy(port) as proxy:
        yield Shaky(place, proxy)


async def cut(proxy: FaultProxy) -> None:
    proxy.cut()


async def half_close_up(proxy: FaultProxy) -> None:
    proxy.half_close(up=True)


async def half_close_down(proxy: FaultProxy) -> None:
    proxy.half_close(up=False, down=True)


async def _for_a_second(proxy: FaultProxy) -> None:
    await asyncio.sleep(1.0)
    proxy.heal()


async def black_hole(proxy: FaultProxy) -> None:
    proxy.black_hole()
    await _for_a_second(proxy)


async def deaf(proxy: FaultProxy) -> None:
    proxy.black_hole(up=False)
    await _for_a_second(proxy)


async def stall(proxy: FaultProxy) -> None:
    proxy.stall()
    await _for_a_second(proxy)


async def refuse(proxy: FaultProxy) -> None:
    proxy.refuse()
    proxy.cut()
    await _for_a_second(proxy)


async def silence_for_newcomers(proxy: FaultProxy) -> None:
    proxy.black_hole()
    proxy.cut()
    await _for_a_second(proxy)


STRIKES = [
    cut,
    half_close_up,
    half_close_down,
    black_hole,
    deaf,
    stall,
    refuse,
    silence_for_newcomers,
]
strikes = pytest.mark.parametrize("strike", STRIKES, ids=lambda strike: strike.__name__)


async def publish_while(bus: Bus, struck: Callable[[], bool]) -> list[Once]:
    """Publish until the trouble is over, and one batch more; return what was accepted."""
    accepted: list[Once] = []
    more = True
    while more:
        more = not struck()
        batch = [Once(len(accepted) + number) for number in range(BATCH)]
        receipts = await asyncio.gather(*(bus.publish(each) for each in batch))
        assert len({receipt.message_id for receipt in receipts}) == BATCH
        accepted += batch
    return accepted


@strikes
def test_what_goes_through_trouble_is_stored_once_and_handled(
    brokered: Place, strike: Strike
) -> None:
    async def law() -> None:
        async with shaky(brokered) as here:
            consumer = here.bus(prefetch=10)
            handled = keep(consumer, Once)
            async with consumer, here.bus() as bus:
                await bus.publish(Once(-1))
                trouble = asyncio.create_task(strike(here.proxy))
                accepted = await publish_while(bus, trouble.done)
                await trouble
                again = await bus.publish_many(accepted)
                assert (again.accepted, again.duplicates) == (len(accepted), len(accepted))
                await eventually(lambda: len(set(handled)) == len(accepted) + 1, 15)
                await eventually(here.nothing_left, 15)
            stored = await here.copies()
        assert len(stored) == len(accepted) + 1
        assert set(stored.values()) == {1}

    run(law)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_publish_cut_at_any_write_is_stored_once(
    brokered: Place, k: int, when: Literal["before", "after"]
) -> None:
    async def law() -> None:
        async with shaky(brokered) as here, here.bus() as bus:
            await bus.publish(Once(-1))
            sprung = here.proxy.cut_at_write(k, when)
            accepted: list[Any] = []
            while not sprung.is_set():  # each publish is a write of its own
                accepted.append(Once(len(accepted)))
                await bus.publish(accepted[-1])
            again = await bus.publish_many(accepted)
            assert again.duplicates == len(accepted)
            stored = await here.copies()
        assert len(stored) == len(accepted) + 1
        assert set(stored.values()) == {1}

    run(law)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("k", range(1, 5))
def test_coming_back_may_be_cut_at_any_write(
    brokered: Place, k: int, when: Literal["before", "after"]
) -> None:
    async def law() -> None:
        async with shaky(brokered) as here, here.bus() as bus, brokered.bus() as publisher:
            consumer = here.bus()
            handled = keep(consumer, Once)
            async with consumer:
                await bus.publish(Once(0))
                here.proxy.cut()
                sprung = here.proxy.cut_at_write(k, when)
                await bus.publish(Once(1))
                await eventually(sprung.is_set)
                await publisher.publish(Once(2))
                await eventually(lambda: len(set(handled)) == 3, 15)
                await eventually(here.nothing_left, 15)
            stored = await here.copies()
            assert len(stored) == 3
            assert set(stored.values()) == {1}

    run(law)


def test_a_lost_receipt_is_asked_for_again_and_says_duplicate(brokered: Place) -> None:
    async def law() -> None:
        async with shaky(brokered) as here, here.bus() as bus:
            await bus.publish(Once(-1))
            sprung = here.proxy.lose_reply(b'"number":77')
            receipt = await bus.publish(Once(77))
            assert sprung.is_set()
            assert receipt.duplicate, "the repeat met what the first try had stored"
            assert set((await here.copies()).values()) == {1}

    run(law)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("k", range(1, 7))
def test_a_consumer_cut_at_any_write_loses_nothing(
    brokered: Place, k: int, when: Literal["before", "after"]
) -> None:
    async def law() -> None:
        handled: Counter[int] = Counter()
        async with shaky(brokered) as here, brokered.bus() as publisher:
            bus = here.bus()
            sprung = asyncio.Event()

            @bus.handle(Once, start=Start.BEGINNING)
            async def handle(message: Once) -> None:
                nonlocal sprung
                if not handled:
                    sprung = here.proxy.cut_at_write(k, when)
                handled[message.number] += 1

            async with bus:
                count = 0
                while not sprung.is_set():
                    await publisher.publish(Once(count))
                    count += 1
                    await eventually(lambda: len(handled) == count, 15)  # noqa: B023 - now
                await eventually(here.nothing_left, 15)
                assert len(handled) == count

    run(law)
