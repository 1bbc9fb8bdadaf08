"""The bus as its users meet it: registration, requests, middleware, instruments, life cycle."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from catga import (
    Bus,
    ConfigurationError,
    Context,
    Instrument,
    Middleware,
    NoResponders,
    QualityOfService,
    RemoteError,
    RequestTimeout,
    Router,
)
from core.engine_kit import Asked, Fast, Once, Order, Probe, dead_letters, eventually, run


def test_a_bus_is_used_once_and_only_while_it_runs() -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus()
        with pytest.raises(ConfigurationError, match="async with"):
            await bus.publish(Order(1))
        async with bus:
            pass
        with pytest.raises(ConfigurationError, match="used once"):
            await bus.__aenter__()
        await bus.close()

    run(law)


def test_two_handlers_for_one_type_in_one_group_are_refused_by_name() -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus()

        @bus.handle(Order)
        async def first(order: Order) -> None: ...

        @bus.handle(Order)
        async def second(order: Order) -> None: ...

        with pytest.raises(ConfigurationError, match=r"first.*second.*group of its own"):
            await bus.__aenter__()

    run(law)


def test_two_handlers_for_one_request_are_refused_even_in_two_groups() -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus()

        @bus.handle(Asked)
        async def first(request: Asked) -> int:
            return 1

        @bus.handle(Asked, group="other")
        async def second(request: Asked) -> int:
            return 2

        with pytest.raises(ConfigurationError, match="a request has one answer"):
            await bus.__aenter__()

    run(law)


def test_exactly_once_without_a_group_is_refused() -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus()

        @bus.handle(Once, broadcast=True)
        async def listen(message: Once) -> None: ...

        with pytest.raises(ConfigurationError, match="per group"):
            await bus.__aenter__()

    run(law)


def test_a_blocking_handler_is_refused_with_the_way_out() -> None:
    bus = Bus("inmemory://", service="tests")
    with pytest.raises(ConfigurationError, match=r"asyncio\.to_thread"):

        @bus.handle(Order)  # type: ignore[type-var]
        def handle(order: Order) -> None: ...


@pytest.mark.parametrize("qos", list(QualityOfService))
def test_a_request_is_answered_at_every_quality(qos: QualityOfService) -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus()

        @bus.handle(Asked)
        async def answer(request: Asked, context: Context) -> int:
            assert context.qos is qos
            return request.number + 1

        async with bus:
            assert await bus.request(Asked(1), qos=qos) == 2
            answers = await asyncio.gather(*(bus.request(Asked(n), qos=qos) for n in range(50)))
            assert answers == list(range(1, 51))
            assert not bus._session.requester._waiting  # type: ignore[union-attr]

    run(law)


def test_what_is_no_request_cannot_be_asked() -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus()
        handled: list[Order] = []

        @bus.handle(Order)
        async def handle(order: Order) -> None:
            handled.append(order)

        async with bus:
            with pytest.raises(ConfigurationError, match="Order is no Request and has no answer"):
                await bus.request(Order(1))  # type: ignore[arg-type]  # that is the point
        assert handled == []

    run(law)


def test_a_handler_that_fails_for_good_is_told_to_the_requester_once() -> None:
    async def law(probe: Probe) -> None:
        attempts: list[int] = []
        bus = probe.bus({"attempts": 2, "backoff_base": 1})

        @bus.handle(Asked)
        async def answer(request: Asked, context: Context) -> int:
            attempts.append(context.attempt)
            raise LookupError("no such number")

        async with bus:
            asking = asyncio.create_task(bus.request(Asked(1), timeout=30))
            await probe.pass_time(0.05)
            assert attempts == [1]
            assert not asking.done(), "it will be tried again, so it has not failed yet"
            await probe.pass_time(2)
            with pytest.raises(RemoteError, match="no such number") as caught:
                await asking
            assert caught.value.type_name == "LookupError"
            assert attempts == [1, 2]

    run(law)


def test_nobody_there_is_said_at_once_at_qos_0_and_unknown_at_qos_1() -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus()
        async with bus:
            with pytest.raises(NoResponders):
                await bus.request(Asked(1), to="nobody", qos=QualityOfService.AT_MOST_ONCE)
            asking = asyncio.create_task(bus.request(Asked(1), to="nobody", timeout=3))
            await probe.pass_time(4)
            with pytest.raises(RequestTimeout, match="outcome is unknown") as caught:
                await asking
            assert isinstance(caught.value, TimeoutError)

    run(law)


def test_an_expired_request_is_not_started_but_accounted_for() -> None:
    async def law(probe: Probe) -> None:
        calls: list[int] = []
        client, server = probe.bus(service="client", group="client"), probe.bus()

        @server.handle(Asked)
        async def answer(request: Asked) -> int:
            calls.append(request.number)
            return 0

        async with client:
            asking = asyncio.create_task(client.request(Asked(1), to="tests", timeout=3))
            await probe.pass_time(4)
            with pytest.raises(RequestTimeout):
                await asking
            async with server:
                await eventually(lambda: dead_letters(server, "Asked"))
                assert calls == []
                assert server.counts()["tests/Asked"]["expired"] == 1

    run(law)


def test_middleware_stands_around_the_handler_in_the_order_it_was_added() -> None:
    async def law(probe: Probe) -> None:
        steps: list[str] = []

        class Step(Middleware):
            def __init__(self, name: str) -> None:
                self.name = name

            async def on_handle(
                self, message: Any, context: Any, call_next: Callable[[], Awaitable[Any]]
            ) -> Any:
                steps.append(f"{self.name} in")
                result = await call_next()
                steps.append(f"{self.name} out")
                return result

        bus = probe.bus()
        bus.use(Step("outer"), Step("inner"))

        @bus.handle(Asked)
        async def answer(request: Asked) -> int:
            steps.append("handler")
            return 3

        async with bus:
            assert await bus.request(Asked(1)) == 3
        assert steps == ["outer in", "inner in", "handler", "inner out", "outer out"]

    run(law)


def test_middleware_may_add_headers_and_may_refuse_to_publish() -> None:
    async def law(probe: Probe) -> None:
        class Gate(Middleware):
            async def on_publish(self, message: Any, headers: dict[str, str]) -> None:
                if message.number < 0:
                    raise ValueError("negative")
                headers["tenant"] = "north"

        seen: list[dict[str, str]] = []
        bus = probe.bus()
        bus.use(Gate())

        @bus.handle(Order)
        async def handle(order: Order, context: Context) -> None:
            seen.append(dict(context.headers))

        async with bus:
            with pytest.raises(ValueError, match="negative"):
                await bus.publish(Order(-1))
            await bus.publish(Order(1), headers={"colour": "red"})
            await eventually(lambda: seen)
        assert seen == [{"colour": "red", "tenant": "north"}]

    run(law)


def test_an_instrument_sees_each_step_and_one_that_raises_is_switched_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def law(probe: Probe) -> None:
        seen: list[str] = []

        class Watch(Instrument):
            def published(self, message_id: str, subject: str, result: Any) -> None:
                seen.append("published")

            def started(self, context: Any) -> None:
                seen.append("started")

            def finished(self, context: Any, error: BaseException | None) -> None:
                seen.append(f"finished {error}")

            def settled(self, context: Any, outcome: str) -> None:
                seen.append(outcome)

        class Broken(Instrument):
            def started(self, context: Any) -> None:
                raise RuntimeError("I am broken")

        bus = probe.bus()
        bus.use(Broken(), Watch())

        @bus.handle(Order)
        async def handle(order: Order) -> None: ...

        async with bus:
            for number in range(2):
                await bus.publish(Order(number))
            await eventually(lambda: seen.count("ack") == 2)
        assert sorted(seen) == sorted(["published", "started", "finished None", "ack"] * 2)
        assert sum("switched off" in record.message for record in caplog.records) == 1

    with caplog.at_level(logging.ERROR, "catga"):
        run(law)


def test_handlers_of_a_router_are_those_of_the_bus_that_includes_it() -> None:
    async def law(probe: Probe) -> None:
        router = Router()
        seen: list[int] = []

        @router.handle(Order)
        async def handle(order: Order) -> None:
            seen.append(order.number)

        bus = probe.bus()
        bus.include(router)
        async with bus:
            await bus.publish(Order(1))
            await eventually(lambda: seen == [1])

    run(law)


def test_a_handler_added_to_a_running_bus_is_refused_not_forgotten() -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus()
        async with bus:
            with pytest.raises(ConfigurationError, match="before it is entered"):

                @bus.handle(Order)
                async def handle(order: Order) -> None: ...

    run(law)


def test_a_bus_that_only_publishes_starts_no_handler() -> None:
    async def law(probe: Probe) -> None:
        seen: list[int] = []
        bus = probe.bus(consume=False)

        @bus.handle(Fast)
        async def handle(message: Fast) -> None:
            seen.append(message.number)

        async with bus:
            await bus.publish(Fast(1))
            await probe.pass_time(10)
        assert seen == []
        assert bus.counts() == {}

    run(law)


def test_leaving_a_bus_ends_every_task_it_started() -> None:
    async def law(probe: Probe) -> None:
        before = asyncio.all_tasks()
        bus = probe.bus()

        @bus.handle(Asked)
        async def answer(request: Asked) -> int:
            return 1

        async with bus:
            await bus.request(Asked(1))
            session = bus._session
            assert session is not None
            await session.requester.close()
            await probe.pass_time(1)  # what listened for responses must not spin by now
        assert asyncio.all_tasks() == before

    run(law)


def test_a_bus_whose_body_is_cancelled_still_drains() -> None:
    async def law(probe: Probe) -> None:
        ends: list[str] = []
        started = asyncio.Event()

        async def serve() -> None:
            bus = probe.bus()

            @bus.handle(Order)
            async def handle(order: Order) -> None:
                started.set()
                await probe.clock.sleep(1)
                ends.append("handled")

            async with bus:
                await bus.publish(Order(1))
                await asyncio.Event().wait()

        serving = asyncio.create_task(serve())
        await started.wait()
        serving.cancel()
        await asyncio.sleep(0)
        serving.cancel()
        await probe.pass_time(2)
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert ends == ["handled"]

    run(law)
