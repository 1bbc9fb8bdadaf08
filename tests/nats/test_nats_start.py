"""What a start may do to streams and consumers that others use: look first, then create."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from nats_kit import Opened, opened, until

from catga.errors import CapabilityError, CatgaError
from catga.spi import QualityOfService
from catga_nats.testing import NatsServer

TWICE = QualityOfService.EXACTLY_ONCE

_REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"storage": "memory"}, {}, "storage"),
    ({"max_age": timedelta(minutes=1)}, {}, "max_age"),
    ({"duplicate_window": timedelta(seconds=1)}, {}, "duplicate_window"),
    ({"max_deliver": 50}, {"attempts": 5}, "max_deliver"),
]


async def _all_there_is(here: Opened) -> list[Any]:
    """The streams and consumers of this namespace as they are set, and how much they hold."""
    found: list[Any] = []
    for stream in (await here.ask("STREAM.LIST", {}))["streams"] or []:
        name = stream["config"]["name"]
        if name.startswith(f"{here.namespace}-"):
            listed = (await here.ask(f"CONSUMER.LIST.{name}", {}))["consumers"] or []
            found.append((stream["config"], stream["state"], [one["config"] for one in listed]))
    return found


@pytest.mark.parametrize("before", [True, False], ids=["in use", "fresh"])
@pytest.mark.parametrize(("settings", "source", "risk"), _REFUSED, ids=[e[2] for e in _REFUSED])
def test_a_refused_start_changes_nothing_on_the_server(
    server: NatsServer, settings: dict[str, Any], source: dict[str, Any], risk: str, before: bool
) -> None:
    async def law() -> None:
        async with opened(server.url) as keeper:
            if before:
                await keeper.prepare(keeper.source(), qos=TWICE)
                await keeper.transport.publish([keeper.outgoing(qos=TWICE)])
            was = await _all_there_is(keeper)
            async with opened(server.url, keeper.namespace, **settings) as refused:
                with pytest.raises(CatgaError, match=risk):
                    await refused.prepare(refused.source(**source), qos=TWICE)
            assert await _all_there_is(keeper) == was
            assert bool(was) is before

    asyncio.run(law())


@pytest.mark.parametrize("risk", ["max_age", "duplicate_window"])
def test_no_bus_takes_from_a_stream_what_others_were_promised(
    server: NatsServer, risk: str
) -> None:
    """Not at QoS 1 either: it would end the exactly once of others behind their backs."""

    async def law() -> None:
        async with opened(server.url) as promised:
            await promised.prepare(qos=TWICE)
            accepted = frozenset({risk})
            short: dict[str, Any] = {
                risk: timedelta(minutes=10) if risk == "max_age" else timedelta(seconds=1)
            }
            async with opened(server.url, promised.namespace, **short) as other:
                with pytest.raises(CapabilityError, match=rf'{risk}=.*accept_risk=\["{risk}"\]'):
                    await other.prepare()
                assert (await promised.transport.health()).ok
                await other.prepare(accept_risk=accepted)
            health = await promised.transport.health()
            assert not health.ok
            assert risk in health.detail

    asyncio.run(law())


def test_a_bus_with_a_shorter_w_keeps_the_longer_one_of_others(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as promised:
            await promised.prepare(qos=TWICE)
            name, given = promised.namespace, frozenset({"dedupe_window"})
            async with opened(server.url, name, also_given=given) as other:
                await other.prepare(qos=TWICE, dedupe_window=60.0)
                assert await _window(other) == 600 * 10**9
                await other.prepare(qos=TWICE, dedupe_window=1200.0)
                assert await _window(other) == 1200 * 10**9

    asyncio.run(law())


def test_a_shorter_lease_is_refused_while_the_group_is_at_work(server: NatsServer) -> None:
    """Else a member would run what another one still has in hand, and believes to have."""

    async def law() -> None:
        async with opened(server.url) as here:
            member = await here.subscribe(here.source(lease=30.0))
            assert member.lease == 30.0
            short: dict[str, Any] = {"ack_wait": timedelta(seconds=2)}
            async with opened(server.url, here.namespace, **short) as other:
                with pytest.raises(CapabilityError, match=r"ack_wait=30s.*2s.*\[.lease.\]"):
                    await other.prepare(other.source())
                await member.close()
                await until(lambda: _is_free(here))
                assert (await other.subscribe(other.source())).lease == 2.0

    asyncio.run(law())


def test_health_can_be_asked_while_more_is_prepared(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            names = [f"{here.namespace}-{number}" for number in range(10)]

            async def prepare() -> None:
                for name in names:
                    await here.prepare(namespace=name, qos=TWICE)

            preparing = asyncio.create_task(prepare())
            while not preparing.done():
                assert (await here.transport.health()).ok
            await preparing

    asyncio.run(law())


async def _is_free(here: Opened) -> bool:
    info = await here.ask(f"CONSUMER.INFO.{here.namespace}-log.billing=Order")
    return not info["num_waiting"]


async def _window(here: Opened) -> int:
    info = await here.ask(f"STREAM.INFO.{here.namespace}-log")
    window: int = info["config"]["duplicate_window"]
    return window
