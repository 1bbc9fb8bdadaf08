"""Requests exactly once: the response is kept, so that asking again is not doing again."""

from __future__ import annotations

import asyncio
import itertools

from catga.bus import Bus
from catga.errors import RequestTimeout
from catga.spi import Kind, Outgoing
from catga.testing.contract.messages import Paid
from catga.testing.harness import law
from catga.testing.raising import raises
from catga.testing.stage import Stage

__all__ = ["RequestsContract"]


class RequestsContract:
    """Laws of requests at QoS 2."""

    @law(qos=2)
    async def test_a_repeated_request_gets_the_same_response(self, stage: Stage) -> None:
        """QoS 2, sixth law: whoever asks again with the same id, also from another process, gets
        what the first got; the handler does not run again."""
        bus, asker = stage.bus(), stage.bus(service="asker", consume=False)
        calls = _answer(bus)
        async with stage.running(bus, asker):
            request, other = Paid(1), Paid(2)
            first = await stage.wait(asker.request(request, to="law", timeout=20.0))
            assert await stage.wait(asker.request(request, to="law", timeout=20.0)) == first
            again = asker.request(Paid(1), to="law", timeout=20.0, message_id=request.message_id)
            assert await stage.wait(again) == first
            same = bus.request(Paid(1), timeout=20.0, message_id=request.message_id)
            assert await stage.wait(same) == first
            assert await stage.wait(asker.request(other, to="law", timeout=20.0)) != first
        assert calls == [1, 2]

    @law(qos=2)
    async def test_a_response_that_was_lost_is_found_again(self, stage: Stage) -> None:
        """QoS 2, sixth law: kept before it is sent: a requester that never hears it finds it."""
        bus, asker = stage.bus(), stage.bus(service="asker", consume=False)
        calls = _answer(bus)
        stage.tap.lost.add(Kind.REPLY)
        async with stage.running(bus, asker):
            found = await stage.wait(asker.request(Paid(1), to="law", timeout=20.0))
        assert (found, calls) == (1, [1])

    @law(qos=2)
    async def test_who_timed_out_asks_again_and_gets_the_response(self, stage: Stage) -> None:
        """QoS 2, sixth law: after a timeout the outcome is unknown; asking again tells it."""
        bus, asker = stage.bus(), stage.bus(service="asker", consume=False)
        finish = asyncio.Event()
        calls = _answer(bus, finish)
        request = Paid(1)
        async with stage.running(bus, asker):
            with raises(RequestTimeout):
                await stage.wait(asker.request(request, to="law", timeout=stage.scaled(2.0)))
            await stage.until(lambda: calls)
            finish.set()
            assert await stage.wait(asker.request(request, to="law", timeout=20.0)) == 1
        assert calls == [1]

    @law(qos=2)
    async def test_a_repeated_delivery_is_not_answered_again(self, stage: Stage) -> None:
        """QoS 2, sixth law: a second copy of a completed request is acknowledged; nothing that
        the handler did not return is ever sent as its response."""
        transport = await stage.transport()
        bus = stage.bus()
        calls = _answer(bus)
        async with stage.running(bus):
            assert await stage.wait(bus.request(Paid(1), timeout=20.0)) == 1
            copy = _request(stage)
            again = stage.out("Paid", copy.body, qos=2, kind=Kind.REDO, group="law")
            await stage.store(transport, again)
            await stage.until(lambda: bus.counts()["law/Paid"].get("ack") == 2)
        assert calls == [1]
        replies = [out for out, _ in stage.tap.published if out.subject.kind is Kind.REPLY]
        assert len(replies) == 1


def _answer(bus: Bus, finish: asyncio.Event | None = None) -> list[int]:
    """Let the bus answer with the number of the call; return the list of what it was asked."""
    calls: list[int] = []
    count = itertools.count(1)

    @bus.handle(Paid)
    async def answer(paid: Paid) -> int:
        calls.append(paid.number)
        if finish is not None:
            await finish.wait()
        return next(count)

    return calls


def _request(stage: Stage) -> Outgoing:
    (copy,) = stage.tap.stored(Kind.TO)
    return copy
