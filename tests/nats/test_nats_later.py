"""Delayed delivery: by the server's schedules, and where it has none."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats_kit import Opened, collect, fresh_namespace, nothing_comes, opened, until

from catga.errors import CapabilityError, ConfigurationError, PublishRejected
from catga.spi import Ack, EventKind, Kind, Mode, Receipt, Rejected, Settle
from catga.testing import FaultProxy
from catga_nats.connection import parse_version
from catga_nats.later import Mover
from catga_nats.testing import NatsServer

BOUNDED: dict[str, Any] = {"max_bytes": 1 << 30}
"""Such a stream refuses what is too much, and therefore can't have the server's schedules."""
_SHORT = 1.0


def _in(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def _log(here: Opened) -> dict[str, Any]:
    return await here.ask(f"STREAM.INFO.{here.namespace}-log")


async def _all_are_settled(here: Opened, consumer: str) -> bool:
    info = await here.ask(f"CONSUMER.INFO.{here.namespace}-log.{consumer}")
    return bool(info["num_ack_pending"] == info["num_pending"] == 0)


def _has_schedules(here: Opened) -> bool:
    return parse_version(here.client.server_version) >= (2, 12)


@pytest.mark.parametrize("settings", [{}, BOUNDED], ids=["as-it-is", "bounded"])
def test_what_is_delayed_comes_once_not_before_its_time_and_carries_on(
    server: NatsServer, settings: dict[str, Any]
) -> None:
    async def law() -> None:
        async with opened(server.url, **settings) as here:
            subscription = await here.subscribe(here.source())
            to_one = await here.subscribe(here.source("audit"))
            when = _in(_SHORT)
            first = here.outgoing(b"1", "a", not_before=when, attempts=3, replays=2)
            batch = [
                first,
                here.outgoing(b"2", "a", Kind.REDO, "billing", not_before=when),
                first,
                here.outgoing(b"3", "b", not_before=_in(-5)),
            ]
            results = await here.transport.publish(batch)
            assert all(isinstance(each, Receipt) for each in results), results
            assert [each.duplicate for each in results] == [False, False, True, False]  # type: ignore[union-attr]
            (now,) = await collect(subscription, 1)
            assert (now.body, now.attempt, now.headers) == (b"3", 1, None)
            got = await collect(subscription, 2)
            assert datetime.now(UTC) >= when
            assert {each.body for each in got} == {b"1", b"2"}
            late = next(each for each in got if each.body == b"1")
            assert (late.attempt, late.replays, late.headers) == (4, 2, None)
            assert late.subject == first.subject
            await subscription.settle([Settle(each, Ack()) for each in (now, *got)])
            assert {each.body for each in await collect(to_one, 2)} == {b"1", b"3"}
            (again,) = await here.transport.publish([first])
            assert isinstance(again, Receipt)
            assert again.duplicate, "also when it is due, one id is stored once"
            await nothing_comes(subscription)

            async def nothing_is_kept_twice() -> bool:
                return bool((await _log(here))["state"]["messages"] == 3)

            await until(nothing_is_kept_twice)

    asyncio.run(law())


def test_the_server_itself_holds_back_where_it_can(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            await here.prepare(here.source())
            config = (await _log(here))["config"]
            consumers = (await here.ask(f"CONSUMER.NAMES.{here.namespace}-log"))["consumers"]
            assert bool(config.get("allow_msg_schedules")) == _has_schedules(here)
            assert ("later" in consumers) == (not _has_schedules(here))
            bounded = fresh_namespace()
        async with opened(server.url, bounded, **BOUNDED) as here:
            await here.prepare(here.source())
            config = (await _log(here))["config"]
            assert (config["discard"], config.get("allow_msg_schedules")) == ("new", None)

    asyncio.run(law())


def test_a_stream_made_without_is_brought_up_or_its_lack_is_named(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            kinds = ("log", "to", "redo")
            old = {
                "name": f"{here.namespace}-log",
                "subjects": [f"{here.namespace}.{kind}.>" for kind in kinds],
                "retention": "limits",
                "discard": "new",
                "storage": "file",
                "num_replicas": 1,
                "duplicate_window": 600 * 10**9,
            }
            await here.ask(f"STREAM.CREATE.{here.namespace}-log", old)
            await here.ask(
                f"STREAM.CREATE.{here.namespace}-dead",
                {**old, "name": f"{here.namespace}-dead", "subjects": [f"{here.namespace}.dead.>"]},
            )
            with pytest.raises(ConfigurationError, match="subjects"):
                await here.prepare(here.source(), mode=Mode.VERIFY)
            await here.prepare(here.source())
            config = (await _log(here))["config"]
            assert bool(config.get("allow_msg_schedules")) == _has_schedules(here)
            await here.prepare(here.source(), mode=Mode.VERIFY)
            assert not here.told(EventKind.RISK)
            subscription = await here.subscribe(here.source())
            await here.transport.publish([here.outgoing(b"x", not_before=_in(0.5))])
            assert [each.body for each in await collect(subscription, 1)] == [b"x"]

    asyncio.run(law())


def test_a_bound_on_a_stream_with_schedules_is_refused_not_made_to_drop(
    server: NatsServer,
) -> None:
    async def law() -> None:
        namespace = fresh_namespace()
        async with opened(server.url, namespace) as here:
            await here.prepare(here.source())
        async with opened(server.url, namespace, **BOUNDED) as here:
            try:
                await here.prepare(here.source())
            except (CapabilityError, ConfigurationError) as error:
                assert "schedul" in str(error)  # noqa: PT017 - one server refuses, another can
            config = (await _log(here))["config"]
            assert config["max_bytes"] == -1 or config["discard"] == "new"

    asyncio.run(law())


@pytest.mark.parametrize("settings", [{}, BOUNDED], ids=["as-it-is", "bounded"])
def test_what_is_delayed_survives_the_end_of_the_server_and_of_the_publisher(
    binary: str | None, settings: dict[str, Any]
) -> None:
    async def law(server: NatsServer) -> None:
        namespace = fresh_namespace()
        when = _in(3.0)
        async with opened(server.url, namespace, **settings) as here:
            await here.prepare(here.source())
            (result,) = await here.transport.publish([here.outgoing(b"x", "a", not_before=when)])
            assert isinstance(result, Receipt)
        server.kill()
        server.start()
        async with opened(server.url, namespace, **settings) as here:
            subscription = await here.subscribe(here.source())
            (again,) = await here.transport.publish([here.outgoing(b"x", "a", not_before=when)])
            assert isinstance(again, Receipt)
            assert again.duplicate
            (delivery,) = await collect(subscription, 1)
            assert datetime.now(UTC) >= when
            assert delivery.body == b"x"
            await nothing_comes(subscription)

    with NatsServer(binary) as server:
        asyncio.run(law(server))


def test_what_held_back_was_crashed_between_its_two_steps_comes_once(server: NatsServer) -> None:
    """The copy is stored, the settlement never sent: the next one to carry it stores no second."""

    async def law() -> None:
        async with opened(server.url, **BOUNDED) as here:
            subscription = await here.subscribe(here.source())
            when = _in(0.5)
            await here.transport.publish(
                [
                    here.outgoing(b"x", "a", not_before=when),
                    here.outgoing(b"x", "a/due"),  # as whoever crashed has stored it
                ]
            )
            await collect(subscription, 1)
            await until(lambda: _all_are_settled(here, "later"))
            assert datetime.now(UTC) >= when
            await nothing_comes(subscription)

    asyncio.run(law())


def test_what_holds_back_is_made_again_when_it_is_lost(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url, **BOUNDED) as here:
            subscription = await here.subscribe(here.source())
            when = _in(1.0)
            await here.transport.publish([here.outgoing(b"x", "a", not_before=when)])
            await here.ask(f"CONSUMER.DELETE.{here.namespace}-log.later")
            assert [each.body for each in await collect(subscription, 1)] == [b"x"]
            assert datetime.now(UTC) >= when

    asyncio.run(law())


@pytest.mark.parametrize("step", [b".log.Order.0 ", b".MSG.DELETE.", b"+ACK"])
def test_after_whichever_step_its_carrier_is_cut_off_one_copy_is_all_that_stays(
    server: NatsServer, step: bytes
) -> None:
    """What was settled and not removed yet was never removed."""

    async def law() -> None:
        async with (
            FaultProxy(server.port) as proxy,
            opened(f"nats://127.0.0.1:{proxy.port}", **BOUNDED) as here,
            opened(server.url, here.namespace) as beside,
        ):
            await here.prepare()
            outgoing = here.outgoing(not_before=_in(0.3))
            await here.transport.publish([outgoing])
            await asyncio.wait_for(proxy.lose_reply(step).wait(), 5)

            async def one_copy_is_all() -> bool:
                every = {"subjects_filter": ">"}
                info = await beside.ask(f"STREAM.INFO.{here.namespace}-log", every)
                return bool(info["state"]["subjects"] == {outgoing.subject.text: 1})

            await until(one_copy_is_all)
            await until(lambda: _all_are_settled(beside, "later"))

    asyncio.run(law())


@pytest.mark.parametrize("due", ["", "soon", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59-14:00"])
def test_whatever_somebody_stores_among_the_delayed_the_others_come(
    server: NatsServer, due: str
) -> None:
    async def law() -> None:
        async with opened(server.url, **BOUNDED) as here:
            subscription = await here.subscribe(here.source())
            target = here.outgoing().subject.text
            headers = {"Catga-Target": target, "Catga-Due": due}
            await here.client.send(f"{here.namespace}.later.wait.x", b"poison", "", headers)
            await here.transport.publish([here.outgoing(b"x", not_before=_in(0.2))])
            assert [each.body for each in await collect(subscription, 1)] == [b"x"]
            await until(lambda: _all_are_settled(here, "later"))

    asyncio.run(law())


def test_what_holds_back_goes_on_after_whatever_befell_it(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended for good, and its subscription kept what it had: nobody else could carry that."""
    carry = Mover._carry
    failed: list[object] = []

    async def fail_once(self: Mover, batch: Any) -> Any:
        if not failed:
            failed.append(batch)
            raise RuntimeError("out of luck")
        return await carry(self, batch)

    async def law() -> None:
        async with opened(server.url, **BOUNDED) as here:
            subscription = await here.subscribe(here.source())
            monkeypatch.setattr(Mover, "_carry", fail_once)
            await here.transport.publish([here.outgoing(b"x", not_before=_in(0.2))])
            assert [each.body for each in await collect(subscription, 1)] == [b"x"]
            assert any("out of luck" in words for words in here.told(EventKind.TROUBLE))

    asyncio.run(law())


def test_what_would_be_removed_before_it_is_due_is_refused(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url, max_age=timedelta(hours=1)) as here:
            await here.prepare(here.source())
            (result,) = await here.transport.publish([here.outgoing(not_before=_in(7200))])
            assert isinstance(result, Rejected)
            assert isinstance(result.error, PublishRejected)
            assert not result.transient
            assert "max_age" in str(result.error)

    asyncio.run(law())
