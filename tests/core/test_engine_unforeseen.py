"""A plugin that raises what no plugin may: it is told, and whoever met it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

from catga import ConnectionLost, QualityOfService, Reject, RemoteError, Request
from catga.errors import SubscriptionClosed
from catga.testing import settle_loop
from catga_inmemory.inbox import MemoryInbox
from catga_inmemory.subscriptions import LogSubscription
from catga_inmemory.transport import MemoryTransport
from core.engine_kit import Order, Probe, eventually, run


@attrs.frozen
class OnceAsked(Request[int]):
    qos = QualityOfService.EXACTLY_ONCE
    number: int


FAILURES = pytest.mark.parametrize(
    "failure", [ConnectionLost("not now"), RuntimeError("a bug in a plugin")], ids=repr
)


def fail_first(
    monkeypatch: pytest.MonkeyPatch, cls: type, name: str, *failures: Exception
) -> Callable[[], bool]:
    """Let the first calls of a method raise these; return what says that they have."""
    right: Any = getattr(cls, name)
    left: Iterator[Exception] = iter(failures)
    over: list[bool] = []

    async def call(self: Any, *rest: Any, **more: Any) -> Any:
        if (failure := next(left, None)) is not None:
            raise failure
        over.append(True)
        return await right(self, *rest, **more)

    monkeypatch.setattr(cls, name, call)
    return lambda: bool(over)


@FAILURES
@pytest.mark.parametrize("closed", [False, True], ids=["goes on", "is closed"])
def test_a_reader_goes_on_whatever_receiving_and_opening_again_end_with(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, closed: bool
) -> None:
    async def law(probe: Probe) -> None:
        numbers: list[int] = []
        bus = probe.bus()

        @bus.handle(Order)
        async def handle(order: Order) -> None:
            numbers.append(order.number)

        ended = SubscriptionClosed("gone") if closed else failure
        received = fail_first(monkeypatch, LogSubscription, "receive", ended)
        async with bus:
            opened = fail_first(monkeypatch, MemoryTransport, "subscribe", failure, failure)
            await bus.publish(Order(1))
            await probe.pass_time(2 if closed else 1)
            assert received()
            assert opened() is closed
            await eventually(lambda: numbers == [1])

    run(law)


@FAILURES
@pytest.mark.parametrize("later", [0, 1000], ids=["swallowed", "stored again"])
def test_the_failure_of_a_request_that_cannot_be_read_now_is_read_later(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, later: int
) -> None:
    """By who asks, when the broker knows the request; by who answers, when it has forgotten it."""

    async def law(probe: Probe) -> None:
        runs: list[int] = []
        bus = probe.bus()

        @bus.handle(OnceAsked)
        async def handle(asked: OnceAsked) -> int:
            runs.append(asked.number)
            raise Reject("never")

        async def ask(number: int = 1) -> None:
            request = bus.request(OnceAsked(number), to="tests", message_id=f"{number}", timeout=60)
            with pytest.raises(RemoteError, match="never"):
                await request

        async with bus:
            await ask()
            await probe.pass_time(later)
            read = fail_first(monkeypatch, MemoryInbox, "responses", failure)
            again = asyncio.create_task(ask())
            await probe.pass_time(30)
            await again
            assert read()
            await ask(2)
        assert runs == [1, 2]

    run(law)


@FAILURES
def test_a_transport_that_cannot_close_keeps_no_task_alive(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    async def law(probe: Probe) -> None:
        before = asyncio.all_tasks()
        bus = probe.bus()

        @bus.handle(Order)
        async def handle(order: Order) -> None: ...

        async with bus:
            session = bus._session
            assert session is not None
            fail_first(monkeypatch, MemoryTransport, "close", failure)
            assert asyncio.all_tasks() > before
        await settle_loop()
        assert asyncio.all_tasks() == before
        await session.plan.transport.close()  # or its broker stays for the laws after this one

    run(law)
