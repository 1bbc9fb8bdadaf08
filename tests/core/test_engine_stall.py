"""A member that stood still: what became another's meanwhile is left to that one."""

from __future__ import annotations

import asyncio

from catga.testing.contract.messages import Charged, Ordered, keep
from catga.testing.harness import Harness
from catga.testing.programs.member import MemberClock
from catga.testing.stage import Stage
from catga_inmemory.broker import _shared


def test_what_waited_behind_a_stall_longer_than_the_lease_is_not_begun() -> None:
    async def law(stage: Stage) -> None:
        goes_on = asyncio.Event()

        async def stall(_number: int, _attempt: int) -> None:
            await goes_on.wait()

        clock = MemberClock(stage.clock)
        slow, other = stage.bus(clock=clock, settings={"concurrency": 1}), stage.bus()
        here, there = keep(slow, Ordered, stall), keep(other, Ordered)
        async with stage.running(slow):
            await stage.wait(slow.publish_many(Ordered(number) for number in range(2)))
            await stage.until(lambda: here.calls)
            # As with everything that stands still, nothing more reaches it either.
            _shared["stall"].stream(stage.namespace, "Ordered").groups["law"].members.clear()
            async with stage.running(other):
                clock.freeze()
                try:
                    await stage.until(lambda: there.numbers == [0, 1])
                finally:
                    goes_on.set()  # before its own timers tell it how late it is
                    for _ in range(100):
                        await asyncio.sleep(0)
                    clock.thaw()
        assert here.numbers == [0], "the second was another's by then"

    Harness(url="inmemory://stall", manual_clock=True).run(law)


def test_what_is_doubtful_is_not_begun_and_what_runs_is_settled() -> None:
    async def law(stage: Stage) -> None:
        goes_on = asyncio.Event()

        async def wait(_number: int, _attempt: int) -> None:
            await goes_on.wait()

        bus = stage.bus(settings={"concurrency": 1})
        heard = keep(bus, Ordered, wait)
        async with stage.running(bus):
            await stage.wait(bus.publish_many(Ordered(number) for number in range(3)))
            await stage.until(lambda: heard.calls)
            assert bus._session is not None
            feeds = [feed for each in bus._session.consumers for feed in each._feeds]
            (feed,) = (feed for feed in feeds if feed.settler is not None)
            for work in feed.works:
                work.delivery.doubtful = True
            goes_on.set()
            await stage.until(lambda: len(heard.calls) == 3)
            await stage.until(lambda: bus.counts()["law/Ordered"]["ack"] == 3)
        assert heard.calls == [(0, 1), (1, 2), (2, 2)], "the others came again with their lease"

    Harness(url="inmemory://doubt", manual_clock=True).run(law)


def test_what_is_doubtful_is_not_done_to_its_end_where_it_must_not_be_done_twice() -> None:
    async def law(stage: Stage) -> None:
        ends = list[str]()

        async def wait(_number: int, attempt: int) -> None:
            if attempt == 1:
                try:
                    await asyncio.Event().wait()
                finally:
                    ends.append("stopped")
            ends.append("effect")

        bus = stage.bus()
        heard = keep(bus, Charged, wait)
        async with stage.running(bus):
            await stage.wait(bus.publish(Charged(1)))
            await stage.until(lambda: heard.calls)
            assert bus._session is not None
            for consumer in bus._session.consumers:
                for feed in consumer._feeds:
                    for work in feed.works:
                        work.delivery.doubtful = True
            await stage.until(lambda: bus.counts()["law/Charged"].get("ack"))
        assert ends == ["stopped", "effect"]
        assert heard.calls == [(1, 1), (1, 2)]

    Harness(url="inmemory://stopped", manual_clock=True).run(law)
