"""Questions and answers, at every quality over every transport."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import pytest

from bus.bus_kit import Asked, Place, eventually, run, settled
from catga import (
    Bus,
    ConfigurationError,
    Context,
    QualityOfService,
    RemoteError,
    Request,
    RequestTimeout,
)

every_quality = pytest.mark.parametrize("qos", list(QualityOfService))
stored_quality = pytest.mark.parametrize("qos", list(QualityOfService)[1:])


def answering(place: Place, calls: list[int], **more: Any) -> Bus:
    bus = place.bus(**{"group": "answers", **more})

    @bus.handle(Asked)
    async def answer(request: Asked) -> int:
        calls.append(request.number)
        await asyncio.sleep(0)
        return request.number + 1

    return bus


@every_quality
def test_many_at_once_get_each_their_own_answer(place: Place, qos: QualityOfService) -> None:
    async def law() -> None:
        calls: list[int] = []
        members = [answering(place, calls) for _ in range(2)]
        async with members[0], members[1], place.bus() as one, place.bus() as two:
            answers = await asyncio.gather(
                *(one.request(Asked(number), to="answers", qos=qos) for number in range(50)),
                *(two.request(Asked(number), to="answers", qos=qos) for number in range(50, 100)),
            )
        assert answers == list(range(1, 101))
        assert sorted(calls) == list(range(100)), "each was handled by one member, once"

    run(law)


@every_quality
def test_a_request_goes_to_one_group_only(place: Place, qos: QualityOfService) -> None:
    async def law() -> None:
        calls: list[int] = []
        others: list[int] = []
        near, far = answering(place, calls), answering(place, others, group="far")
        async with near, far:
            assert await far.request(Asked(1), to="answers", qos=qos) == 2
            assert await near.request(Asked(2), qos=qos) == 3, "by default its own"
        assert (calls, others) == ([1, 2], [])

    run(law)


@every_quality
def test_a_handler_that_fails_is_told_to_who_asked(place: Place, qos: QualityOfService) -> None:
    async def law() -> None:
        attempts: list[int] = []
        bus = place.bus(settings={"attempts": 3})

        @bus.handle(Asked)
        async def answer(request: Asked, context: Context) -> int:
            attempts.append(context.attempt)
            raise LookupError(f"no number {request.number}")

        async with bus:
            with pytest.raises(RemoteError, match="no number 7") as caught:
                await bus.request(Asked(7), qos=qos, timeout=10)
            assert caught.value.type_name == "LookupError"
            assert attempts == [[1], [1, 2, 3], [1, 2, 3]][qos]

    run(law)


@stored_quality
def test_an_answer_in_the_second_attempt_is_an_answer(place: Place, qos: QualityOfService) -> None:
    async def law() -> None:
        bus = place.bus()

        @bus.handle(Asked)
        async def answer(request: Asked, context: Context) -> int:
            if context.attempt == 1:
                raise ConnectionError
            return context.attempt

        async with bus:
            assert await bus.request(Asked(1), qos=qos) == 2

    run(law)


@stored_quality
def test_a_request_waits_for_who_starts_later(place: Place, qos: QualityOfService) -> None:
    async def law() -> None:
        calls: list[int] = []
        async with place.bus() as asker:
            asking = asyncio.create_task(asker.request(Asked(1), to="answers", qos=qos, timeout=9))
            async with place.outside() as outside:

                async def is_stored() -> bool:
                    return bool(await outside.everything())

                await eventually(is_stored)
            async with answering(place, calls):
                assert await asking == 2

    run(law)


def test_an_expired_request_is_parked_and_not_started(place: Place) -> None:
    async def law() -> None:
        calls: list[int] = []
        async with place.outside() as outside, place.bus() as asker:
            with pytest.raises(RequestTimeout):
                await asker.request(Asked(1), to="answers", timeout=0.05)
            server = answering(place, calls)
            async with server:
                await settled(outside, "Asked", "answers")
                assert server.counts()["answers/Asked"]["expired"] == 1
            (letter,) = await outside.dead("Asked", "answers")
        assert calls == []
        assert "deadline" in letter["cause"]

    run(law)


@every_quality
def test_a_handler_may_ask(place: Place, qos: QualityOfService) -> None:
    @attrs.frozen
    class Outer(Request[int]):
        number: int

    async def law() -> None:
        bus = place.bus(settings={"concurrency": 1})

        @bus.handle(Outer)
        async def outer(request: Outer) -> int:
            return 10 * await bus.request(Asked(request.number), qos=qos)

        @bus.handle(Asked)
        async def inner(request: Asked) -> int:
            return request.number + 1

        async with bus:
            assert await bus.request(Outer(1), qos=qos) == 20

    run(law)


@every_quality
def test_a_requester_that_ends_leaves_nothing_behind(place: Place, qos: QualityOfService) -> None:
    async def law() -> None:
        started, goes_on = asyncio.Event(), asyncio.Event()
        server = place.bus()

        @server.handle(Asked)
        async def answer(request: Asked) -> int:
            started.set()
            await goes_on.wait()
            return 1

        async with server:
            async with place.bus(group="asker") as asker:
                asking = asyncio.create_task(asker.request(Asked(1), to="tests", qos=qos))
                await started.wait()
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
            goes_on.set()
            with pytest.raises(ConfigurationError):
                await asker.request(Asked(2))
            await eventually(lambda: server.counts()["tests/Asked"].get("handled") == 1)

    run(law)


def test_the_same_request_again_is_handled_again_at_qos_1(place: Place) -> None:
    async def law() -> None:
        calls: list[int] = []
        async with answering(place, calls), place.bus() as asker:
            request = Asked(1)
            for _ in range(2):
                assert (
                    await asker.request(request, to="answers", qos=QualityOfService.AT_LEAST_ONCE)
                    == 2
                )
        assert calls == [1, 1]

    run(law)


def test_the_same_request_again_gets_the_same_response_at_qos_2(place: Place) -> None:
    async def law() -> None:
        calls: list[int] = []
        async with answering(place, calls), place.bus() as asker:
            request = Asked(1)
            for _ in range(2):
                assert (
                    await asker.request(request, to="answers", qos=QualityOfService.EXACTLY_ONCE)
                    == 2
                )
        assert calls == [1]

    run(law)
