"""Completion records on another server than the messages: `Bus(url, inbox=…)`."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import attrs
import pytest

from bus.bus_kit import PASSWORD, Once, Place, eventually, fresh_namespace, keep, run
from catga import Bus, CapabilityError, ConfigurationError, ConnectionLost
from catga_redis.testing import RedisServer


@attrs.frozen
class Pair:
    """Messages on one server, records on another, which wants a password."""

    place: Place
    records: RedisServer

    def bus(self, **more: Any) -> Bus:
        return self.place.bus(inbox=self.records.url, **more)


@pytest.fixture
def pair(place: Place) -> Any:
    with RedisServer(password=PASSWORD) as records:
        yield Pair(place, records)


def test_the_mode_says_where_the_records_are_and_never_the_password(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async def law() -> None:
        bus = pair.bus()
        keep(bus, Once)
        async with bus:
            where = f"records at redis://127.0.0.1:{pair.records.port}]"
            words = f"exactly once [windowed: {pair.place.kind}, {where} W=10 min D=24 h"
            assert words in repr(bus)
            assert words in caplog.text
            assert (await bus.health()).ok
            assert PASSWORD not in repr(bus) + repr(bus.transport) + caplog.text

    with caplog.at_level("INFO", "catga"):
        run(law)


def test_while_the_records_cannot_be_reached_nothing_is_begun_or_acknowledged(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """QoS 2, third and fourth law: handler, record, acknowledgement; and it recovers by itself."""

    async def law() -> None:
        goes_on, numbers = asyncio.Event(), list[int]()
        bus = pair.bus(settings={"wait_handled": False})

        @bus.handle(Once)
        async def handle(message: Once) -> None:
            numbers.append(message.number)
            await goes_on.wait()

        async with bus, pair.place.outside() as outside:
            await bus.publish(Once(1))
            await eventually(lambda: numbers == [1])
            await asyncio.to_thread(pair.records.kill)
            goes_on.set()
            await bus.publish(Once(2))
            await eventually(lambda: "records cannot be read" in caplog.text)
            assert not (await bus.health()).ok
            assert numbers == [1]
            assert not bus.counts()["tests/Once"].get("ack")
            assert await outside.unsettled("Once", "tests") == 2
            await asyncio.to_thread(pair.records.start)
            await eventually(lambda: bus.counts()["tests/Once"].get("ack") == 2, 25)
            assert sorted(numbers) == [1, 2]

    run(law, 50)


def test_without_its_records_a_bus_does_not_start(pair: Pair) -> None:
    async def law() -> None:
        pair.records.kill()
        bus = pair.bus()
        numbers = keep(bus, Once)
        with pytest.raises(ConnectionLost) as caught:
            await bus.__aenter__()
        assert PASSWORD not in str(caught.value)
        assert numbers == []

    run(law)


@pytest.mark.parametrize(
    ("inbox", "kind", "words"),
    [
        ("redis://127.0.0.1/?lease=5", ConfigurationError, "lease in the URL of the inbox"),
        ("redis://127.0.0.1/?nothing=5", ConfigurationError, "unknown setting 'nothing'"),
        ("rediss:/x", ConfigurationError, "scheme"),
    ],
)
def test_an_inbox_that_makes_no_sense_is_refused(
    place: Place, inbox: str, kind: type[Exception], words: str
) -> None:
    async def law() -> None:
        with pytest.raises(kind, match=re.escape(words)):
            await place.bus(inbox=inbox).__aenter__()

    run(law)


def test_records_in_the_memory_of_a_process_are_refused_where_messages_outlive_it(
    brokered: Place,
) -> None:
    """What was completed would be forgotten, and handled again, with every restart."""

    async def law() -> None:
        name = f"inmemory://{fresh_namespace()}"
        with pytest.raises(CapabilityError, match=r'end with this process.*accept_risk=\["inbox"'):
            await brokered.bus(inbox=name).__aenter__()
        bus = brokered.bus(inbox=name, settings={"accept_risk": ["inbox"]})
        numbers = keep(bus, Once)
        async with bus:
            await bus.publish(Once(1))
            await eventually(lambda: bus.counts()["tests/Once"].get("ack") == 1)
        assert numbers == [1]

    run(law)
