"""What a server cannot keep is refused at the start, by the name of the option that is missing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import attrs
import pytest

from bus.bus_kit import Asked, Fast, Once, Order, Place, eventually, keep, run
from catga import (
    Bus,
    CapabilityError,
    ConfigurationError,
    NoResponders,
    QualityOfService,
    RequestTimeout,
)

Settings = Mapping[str, Any]


async def refused_at_start(bus: Bus, match: str) -> None:
    before = asyncio.all_tasks()
    with pytest.raises(CapabilityError, match=match):
        await bus.__aenter__()
    assert asyncio.all_tasks() == before


def handling(place: Place, cls: type, **settings: object) -> tuple[Bus, list[int]]:
    bus = place.bus(settings=settings)
    return bus, keep(bus, cls)


async def works(bus: Bus, numbers: list[int], cls: Any) -> None:
    async with bus:
        await bus.publish(cls(1))
        await eventually(lambda: numbers == [1])


def risky(place: Place, **options: Any) -> Any:
    """A place on a server of its own with these options."""
    server = place.flavour.server(**options)
    return server, attrs.evolve(place, server=server)


def test_without_jetstream_only_qos_0_works(nats: Place) -> None:
    server, place = risky(nats, jetstream=False)
    needed = r"start nats-server with -js|jetstream \{\}"

    async def law() -> None:
        for cls in (Order, Once):
            await refused_at_start(handling(place, cls)[0], rf"handle of {cls.__name__}.*{needed}")
            await refused_at_start(place.bus(publishes=[cls]), rf"{cls.__name__}.*{needed}")
        bus, numbers = handling(place, Fast)
        async with bus:
            with pytest.raises(CapabilityError, match=needed):
                await bus.publish(Order(1))
            with pytest.raises(CapabilityError, match=needed):
                await bus.send(Order(1), to="tests")
            await bus.publish(Fast(1))
            await eventually(lambda: numbers == [1])

    with server:
        run(law)


@pytest.mark.parametrize(
    ("settings", "risk", "words"),
    [
        ({"storage": "memory"}, "storage", "storage=file"),
        ({"duplicate_window": 60}, "duplicate_window", "set duplicate_window"),
        ({"max_age": 3600}, "max_age", "take away max_age"),
    ],
)
def test_a_stream_that_cannot_keep_qos_2(
    nats: Place, settings: Settings, risk: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    named_and_accepted(nats, settings, risk, words, caplog)


@pytest.mark.parametrize(
    ("options", "risk", "words"),
    [
        ({"appendonly": False}, "persistence", "`appendonly yes`"),
        (
            {"options": ("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")},
            "eviction",
            "`maxmemory-policy noeviction`",
        ),
    ],
)
def test_a_server_that_cannot_keep_qos_2(
    redis: Place, options: Settings, risk: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    server, place = risky(redis, **options)
    with server:
        named_and_accepted(place, {}, risk, words, caplog)


def named_and_accepted(
    place: Place, settings: Settings, risk: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At QoS 2 refused with the option and the way round; at QoS 1 a warning; accepted by name."""

    async def law() -> None:
        bus, _ = handling(place, Once, **settings)
        await refused_at_start(bus, rf"{words}.*accept_risk=.*{risk}")
        await refused_at_start(place.bus(publishes=[Once], settings=settings), words)
        async with place.bus(settings=settings) as publisher:
            with pytest.raises(CapabilityError, match=words):
                await publisher.publish(Once(1))
            caplog.clear()
            await publisher.publish(Order(1))
            assert words.strip("`") in caplog.text
        await works(*handling(place, Once, accept_risk=[risk], **settings), Once)

    with caplog.at_level(logging.WARNING, "catga"):
        run(law)


@pytest.mark.parametrize(
    ("settings", "risk"),
    [
        ({"dedupe_window": 5, "publish_deadline": 10}, "dedupe_window"),
        ({"completion_ttl": 5, "retention": 5}, "completion_ttl"),
        ({"completion_ttl": 7200, "retention": 7201}, "replay"),
    ],
)
def test_a_memory_that_is_shorter_than_the_retries_is_refused_at_qos_2(
    place: Place, settings: dict[str, object], risk: str
) -> None:
    async def law() -> None:
        await refused_at_start(handling(place, Once, **settings)[0], risk)
        await works(*handling(place, Order, **settings), Order)
        await works(*handling(place, Once, accept_risk=[risk], **settings), Once)

    run(law)


def test_two_handlers_that_would_get_in_each_others_way_are_refused_at_the_start(
    place: Place,
) -> None:
    async def law() -> None:
        requests, events = place.bus(), place.bus()
        for group in (None, "other"):

            @requests.handle(Asked, group=group)
            async def answer(request: Asked) -> int:
                return 1

        for _ in range(2):
            keep(events, Order)
        async with place.outside() as outside:
            with pytest.raises(ConfigurationError, match=r"Asked has two handlers.*answer"):
                await requests.__aenter__()
            with pytest.raises(ConfigurationError, match="group of its own"):
                await events.__aenter__()
            assert await outside.groups("Asked") == await outside.groups("Order") == set()

    run(law)


def test_a_request_nobody_handles(place: Place) -> None:
    """At QoS 0 every transport can tell; what is stored may still be handled, and that is said."""

    async def law() -> None:
        elsewhere = place.bus(group="elsewhere")

        @elsewhere.handle(Asked)
        async def answer(request: Asked) -> int:
            return 1

        async with place.outside() as outside, place.bus() as bus, elsewhere:
            with pytest.raises(NoResponders):
                await bus.request(Asked(1), to="nobody", qos=QualityOfService.AT_MOST_ONCE)
            assert await outside.everything() == []
            for qos in (QualityOfService.AT_LEAST_ONCE, QualityOfService.EXACTLY_ONCE):
                with pytest.raises(RequestTimeout, match=r"nobody.*outcome is unknown") as caught:
                    await bus.request(Asked(1), to="nobody", timeout=0.1, qos=qos)
                assert isinstance(caught.value, TimeoutError)
            assert len(await outside.everything()) == 2

    run(law)
