"""Whatever a handler's error is made of: the delivery is concluded, and the others go on."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import attrs
import pytest

from catga import QualityOfService, RemoteError, Request, Retry
from core.engine_kit import Asked, Once, Order, Probe, dead_letters, eventually, run


@pytest.fixture(autouse=True)
def unheard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a surrogate that was logged cannot travel from one test process to another."""
    monkeypatch.setattr(logging.getLogger("catga"), "disabled", True)


ALL = pytest.mark.parametrize("qos", QualityOfService, ids=lambda qos: qos.name)


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class Later(Retry):
    """Leaves out what `Retry` does when it is made."""

    def __init__(self) -> None:
        pass


class Soon(Retry):
    after: Any = "soon"

    def __init__(self) -> None:
        pass


ERRORS = pytest.mark.parametrize("error", [Mute(), Later(), Soon(), ValueError("\ud800")], ids=repr)


@ERRORS
@pytest.mark.parametrize("kind", [Order, Once])
def test_whatever_a_handler_raises_is_tried_again_then_parked_and_others_go_on(
    kind: type[Any], error: Exception
) -> None:
    async def law(probe: Probe) -> None:
        calls: list[int] = []
        bus, name = probe.bus({"attempts": 2, "concurrency": 1}), kind.__name__

        @bus.handle(kind)
        async def handle(message: Any) -> None:
            calls.append(message.number)
            if message.number == 1:
                raise error

        async with bus:
            await bus.publish(kind(1))
            await bus.publish(kind(2))
            await probe.pass_time(5)
            await eventually(lambda: dead_letters(bus, name))
            letter = json.loads(dead_letters(bus, name)[0])["data"]
            assert letter["cause"] == "attempts exhausted"
            assert letter["error"].startswith(type(error).__name__)
            assert bus.counts()[f"tests/{name}"]["in-hand"] == 0
        assert sorted(calls) == [1, 1, 2]

    run(law)


@ALL
@ERRORS
def test_whatever_a_handler_raises_who_asked_is_told_and_others_are_answered(
    qos: QualityOfService, error: Exception
) -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus({"attempts": 1, "concurrency": 1})

        @bus.handle(Asked)
        async def answer(asked: Asked) -> int:
            if asked.number == 1:
                raise error
            return asked.number

        async with bus:
            with pytest.raises(RemoteError) as told:
                await bus.request(Asked(1), qos=qos)
            assert type(error).__name__ in str(told.value)
            assert await bus.request(Asked(2), qos=qos) == 2
            await eventually(lambda: bus.counts()["tests/Asked"]["in-hand"] == 0)

    run(law)


class Panic(BaseException):
    """No `Exception`, as libraries in other languages raise."""


class Nowhere(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta:
        raise Panic


@attrs.frozen
class When(Request[datetime]):
    number: int


@ALL
def test_what_nobody_foresaw_behind_a_handler_is_its_failure_and_others_go_on(
    qos: QualityOfService,
) -> None:
    async def law(probe: Probe) -> None:
        bus, calls = probe.bus({"attempts": 2, "concurrency": 1}), list[int]()

        @bus.handle(When)
        async def answer(when: When) -> datetime:
            calls.append(when.number)
            zone = Nowhere() if when.number == 1 else UTC  # type: ignore[abstract]  # half made
            return datetime(2026, 1, 1, tzinfo=zone)

        async with bus:
            asked = asyncio.create_task(bus.request(When(1), qos=qos, timeout=20))
            await probe.pass_time(5)
            with pytest.raises(RemoteError, match="Panic"):
                await asked
            assert await bus.request(When(2), qos=qos) == datetime(2026, 1, 1, tzinfo=UTC)
            await eventually(lambda: bus.counts()["tests/When"]["in-hand"] == 0)
        assert calls == ([1, 1, 2] if qos else [1, 2])

    run(law)


@pytest.mark.parametrize("mark", ["x", "\0", "\U0001f600"], ids=["plain", "escaped", "wide"])
def test_however_long_an_error_is_its_letter_is_short_and_says_what_was_cut(mark: str) -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus({"attempts": 1})

        @bus.handle(Order)
        async def handle(order: Order) -> None:
            raise RuntimeError(mark * 3_000_000)

        async with bus:
            await bus.publish(Order(1))
            await eventually(lambda: dead_letters(bus, "Order"))
            (body,) = dead_letters(bus, "Order")
        error = json.loads(body)["data"]["error"]
        assert len(body) < 128 * 1024, "less than any broker takes"
        assert error.startswith(f"RuntimeError: {mark * 1000}")
        assert error.endswith("(cut: it has 3000000 characters)")

    run(law)
