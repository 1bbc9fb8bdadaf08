"""Draining: one deadline, what is in hand is finished or given back, and the report is true."""

from __future__ import annotations

import asyncio

from catga.model.outcome import Drained
from catga.spi import Kind
from catga.testing.contract.messages import Ordered, Ticked, keep
from catga.testing.harness import law
from catga.testing.stage import Stage

__all__ = ["DrainingContract"]


class DrainingContract:
    """Laws of `Bus.drain`."""

    @law(qos=1)
    async def test_a_drain_keeps_its_deadline_and_tells_the_truth(self, stage: Stage) -> None:
        """QoS 1, tenth law: what is in hand is finished, what has not begun is given back, what
        still runs at the deadline is stopped and given back; all at once, none by its lease."""
        goes_on = asyncio.Event()

        async def act(number: int, _attempt: int) -> None:
            await (asyncio.Event() if number == 0 else goes_on).wait()

        long = stage.scaled(300.0)
        # Never so short that a machine that stands still for a moment could use it up.
        deadline = max(stage.scaled(4.0), 3.0)
        first = stage.bus(
            settings={
                "lease": long,
                "handler_timeout": None,
                "concurrency": 2,
                "drain_deadline": deadline,
            }
        )
        second = stage.bus(settings={"lease": long})
        begun, rest = keep(first, Ordered, act), keep(second, Ordered)
        async with stage.running(first):
            await stage.wait(first.publish_many(map(Ordered, range(6))))
            await stage.until(lambda: first.counts()["law/Ordered"].get("received") == 6)
            await stage.until(lambda: len(begun.calls) == 2)
            before = stage.clock.monotonic()
            draining = stage.tasks.spawn(first.drain(), "drain")
            await stage.until(lambda: first.counts()["law/Ordered"]["in-hand"] == 2)
            goes_on.set()
            await stage.until(draining.done)
            took = stage.clock.monotonic() - before
            assert draining.result() == Drained(handled=1, returned=4, abandoned=1)
            assert took <= deadline + (0.1 if stage.harness.manual_clock else 10.0)
            assert first.counts()["law/Ordered"]["in-hand"] == 0
            async with stage.running(second):
                await stage.until(lambda: len(rest.calls) == 5, 15.0)
                await stage.until(lambda: second.counts()["law/Ordered"].get("ack") == 5)
        assert begun.numbers == [0, 1]
        assert sorted(rest.calls) == [(number, 2) for number in (0, 2, 3, 4, 5)]

    @law(qos=1)
    async def test_who_was_stopped_by_a_drain_has_not_failed(self, stage: Stage) -> None:
        """QoS 1, seventh and tenth law: not even the last attempt becomes a dead letter because
        its bus had to end."""

        async def hang(_number: int, _attempt: int) -> None:
            await asyncio.Event().wait()

        given: dict[str, object] = {"attempts": 1, "drain_deadline": stage.scaled(1.0)}
        first, second = stage.bus(settings=given), stage.bus(settings=given)
        begun, heard = keep(first, Ordered, hang), keep(second, Ordered)
        async with stage.running(first):
            await first.publish(Ordered(1))
            await stage.until(lambda: begun.calls)
        async with stage.running(second):
            await stage.until(lambda: second.counts()["law/Ordered"].get("ack"))
        assert heard.calls == [(1, 2)]
        assert stage.tap.stored(Kind.DEAD) == []

    @law(qos=0)
    async def test_a_drain_handles_what_was_received_live(self, stage: Stage) -> None:
        """QoS 0, words: drain handles what was received; nobody else could have it."""
        goes_on = asyncio.Event()

        async def wait(_number: int, _attempt: int) -> None:
            await goes_on.wait()

        bus = stage.bus(settings={"concurrency": 1})
        heard = keep(bus, Ticked, wait, broadcast=True)
        name = "broadcast/Ticked"
        async with stage.running(bus):
            for number in range(10):
                await bus.publish(Ticked(number))
            await stage.until(lambda: bus.counts()[name].get("received") == 10)
            draining = stage.tasks.spawn(bus.drain(), "drain")
            await stage.pass_time(0.2)
            goes_on.set()
            await stage.until(draining.done)
            assert draining.result() == Drained(handled=10, returned=0, abandoned=0)
        assert heard.numbers == list(range(10))
