"""Requests exactly once: the response is kept, so that asking again is not doing again."""

from __future__ import annotations

import asyncio
import itertools

from msgspec.structs import replace

from catga.bus import Bus
from catga.errors import RemoteError, RequestTimeout
from catga.model.capability import Capability
from catga.spi import Kind, Outgoing
from catga.testing.contract.messages import Paid
from catga.testing.harness import law
from catga.testing.raising import raises
from catga.testing.stage import Stage
from catga.testing.tap import Point

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

    # ---- failures

    @law(qos=2)
    async def test_a_repeated_request_that_failed_gets_the_same_error(self, stage: Stage) -> None:
        """QoS 2, sixth law: how a request ended in a dead letter is kept as well: whoever asks
        again, also because the answer was lost, is told the same; the handler does not run."""
        bus = stage.bus(settings={"attempts": 2})
        asker = stage.bus(service="asker", consume=False)
        calls = _fail(bus)
        stage.tap.lost.add(Kind.REPLY)
        async with stage.running(bus, asker):
            request = Paid(1)
            for each in (asker, asker, bus):
                asked = each.request(Paid(1), to="law", message_id=request.message_id, timeout=20.0)
                with raises(RemoteError) as told:
                    await stage.wait(asked)
                assert told.value.type_name == "ValueError"
                assert "call 2" in str(told.value)
        assert calls == [1, 1]
        assert len(stage.tap.stored(Kind.DEAD)) == 1

    @law(qos=2)
    async def test_another_copy_of_a_request_that_failed_is_parked_and_not_run(
        self, stage: Stage
    ) -> None:
        """QoS 2, sixth law: also where the broker knows the id no more, and after a crash between
        the error that was kept and the dead letter: nothing is lost, and nothing runs again."""
        transport = await stage.transport()
        bus = stage.bus(settings={"attempts": 1})
        calls = _fail(bus)
        async with stage.running(bus):
            with raises(RemoteError):
                await stage.wait(bus.request(Paid(1), timeout=20.0))
            copy = _request(stage)
            again = stage.out("Paid", copy.body, qos=2, kind=Kind.REDO, group="law")
            await stage.store(transport, again)
            await stage.until(lambda: bus.counts()["law/Paid"].get("dead-letter") == 2)
        assert calls == [1]
        letters = stage.tap.stored(Kind.DEAD)
        assert len(letters) == 2
        assert all(b"call 1" in letter.body for letter in letters)
        replies = [out for out, _ in stage.tap.published if out.subject.kind is Kind.REPLY]
        assert len(replies) == 2, "who asks again is told at once"

    @law(qos=2, needs=[Capability.DEAD_LETTERS])
    async def test_a_replay_of_a_request_that_failed_runs_it(self, stage: Stage) -> None:
        """QoS 2, sixth law, and dead letters: a failure that is kept is no completion: when a
        replay succeeds, whoever asks again gets the response."""
        bus, calls = stage.bus(settings={"attempts": 1}), list[int]()

        @bus.handle(Paid)
        async def answer(paid: Paid) -> int:
            calls.append(paid.number)
            if len(calls) == 1:
                raise ValueError("not yet")
            return 7

        async with stage.running(bus):
            request = Paid(1)
            with raises(RemoteError):
                await stage.wait(bus.request(request, timeout=20.0))
            await stage.wait(_replay(bus))
            await stage.until(lambda: bus.counts()["law/Paid"].get("ack") == 1)
            assert await stage.wait(bus.request(request, timeout=20.0)) == 7
        assert calls == [1, 1]

    @law(qos=2, needs=[Capability.DEAD_LETTERS])
    async def test_of_what_waits_behind_a_failing_request_only_a_replay_runs(
        self, stage: Stage
    ) -> None:
        """QoS 2, sixth law: copies in hand wait for the first one, and share its failure; what
        comes back from the dead letters is there to be tried again."""
        transport, bus = await stage.transport(), stage.bus(settings={"attempts": 1})
        goes_on, calls = asyncio.Event(), list[int]()

        @bus.handle(Paid)
        async def answer(paid: Paid) -> int:
            calls.append(paid.number)
            await goes_on.wait()
            if len(calls) == 1:
                raise ValueError("the first one")
            return 7

        async with stage.running(bus):
            asked = asyncio.create_task(bus.request(Paid(1), timeout=20.0))
            await stage.until(lambda: calls)
            copy = _request(stage)
            again = stage.out("Paid", copy.body, qos=2, kind=Kind.REDO, group="law")
            await stage.store(transport, again)
            await stage.until(lambda: bus.counts()["law/Paid"]["received"] == 2)
            replayed = stage.out("Paid", copy.body, qos=2, kind=Kind.REDO, group="law")
            await stage.store(transport, replace(replayed, replays=1))
            await stage.until(lambda: bus.counts()["law/Paid"]["received"] == 3)
            goes_on.set()
            await stage.until(lambda: bus.counts()["law/Paid"].get("ack") == 1)
            assert bus.counts()["law/Paid"]["dead-letter"] == 2
            with raises(RemoteError):
                await stage.wait(_await(asked))
        assert calls == [1, 1]

    @law(qos=2, needs=[Capability.DEAD_LETTERS])
    async def test_a_failure_that_is_kept_holds_when_the_lease_ends_before_the_letter_is_stored(
        self, stage: Stage
    ) -> None:
        """QoS 2, sixth law: the message comes again while it is being given up; it waits for its
        own first delivery, and that one is lost: it has failed all the same."""
        bus = stage.bus(settings={"attempts": 1, "lease_limit": stage.lease})  # not renewed
        calls, goes_on = _fail(bus), asyncio.Event()

        async def stand_still(point: Point) -> None:
            if point is Point.RECORDED:
                await goes_on.wait()

        stage.tap.at = stand_still
        async with stage.running(bus):
            asked = asyncio.create_task(bus.request(Paid(1), timeout=20.0))
            await stage.until(lambda: bus.counts()["law/Paid"].get("received", 0) == 2)
            goes_on.set()
            with raises(RemoteError, naming="call 1"):
                await stage.wait(_await(asked))
            await stage.until(lambda: bus.counts()["law/Paid"]["in-hand"] == 0)
        assert calls == [1]
        assert len(stage.tap.stored(Kind.DEAD)) == 1

    @law(qos=2)
    async def test_a_request_that_expired_is_answered_when_it_is_asked_again(
        self, stage: Stage
    ) -> None:
        """QoS 2, sixth law: nobody had begun on it when its time was over: who asks again is told
        so, and that nothing was done."""
        asker = stage.bus(service="asker", consume=False)
        request = Paid(1)
        async with stage.running(asker):
            with raises(RequestTimeout):
                await stage.wait(asker.request(request, to="law", timeout=0.05))
            bus = stage.bus()
            calls = _answer(bus)
            async with stage.running(bus):
                await stage.until(lambda: bus.counts()["law/Paid"].get("dead-letter"))
                for _ in range(2):
                    with raises(RemoteError) as told:
                        await stage.wait(asker.request(request, to="law", timeout=20.0))
                    assert "nothing was done" in str(told.value)
        assert calls == []
        assert len(stage.tap.stored(Kind.DEAD)) == 1


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


def _fail(bus: Bus) -> list[int]:
    """Let the bus fail with the number of the call; return the list of what it was asked."""
    calls: list[int] = []

    @bus.handle(Paid)
    async def fail(paid: Paid) -> int:
        calls.append(paid.number)
        raise ValueError(f"call {len(calls)}")

    return calls


async def _await(task: asyncio.Task[int]) -> int:
    return await task


async def _replay(bus: Bus) -> None:
    letters = [letter async for letter in bus.dead_letters.find()]
    assert len(letters) == 1
    await bus.dead_letters.replay(letters)


def _request(stage: Stage) -> Outgoing:
    (copy,) = stage.tap.stored(Kind.TO)
    return copy
