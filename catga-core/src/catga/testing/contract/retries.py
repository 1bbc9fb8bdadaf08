"""Trying again: by the rules of the application, never hot, and at nobody else's cost."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import attrs

from catga.engine.context import Context
from catga.model.message import Event
from catga.model.qos import QualityOfService
from catga.model.retry import Reject, Retry, RetryPolicy
from catga.policy import CRASH_MARGIN
from catga.spi import Done, Kind, Nack, Subscription
from catga.testing.contract.messages import Ordered, keep
from catga.testing.harness import law
from catga.testing.stage import Stage

__all__ = ["RetriesContract"]

_GRAIN = 1e-6
"""Seconds that adding up may be off."""


@attrs.frozen
class Fragile(Event):
    """At least once, and tried twice whatever the settings say."""

    qos = QualityOfService.AT_LEAST_ONCE
    retry = RetryPolicy(attempts=2)
    number: int


class Odd(BaseException):
    """No `Exception`, as some libraries raise when they give up."""


async def _raise_odd() -> None:
    raise Odd


async def _raise_cancelled() -> None:
    raise asyncio.CancelledError


async def _cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def _await_what_is_cancelled() -> None:
    work = asyncio.ensure_future(asyncio.Event().wait())
    work.cancel()
    await work


_ENDS = (_raise_odd, _raise_cancelled, _cancel_itself, _await_what_is_cancelled)


class RetriesContract:
    """Laws of what follows a failed attempt."""

    @law(qos=1)
    async def test_a_failing_message_is_never_tried_hot(self, stage: Stage) -> None:
        """QoS 1, fourth law: between two attempts lies a tenth of the longest backoff at the
        least, also when the handler asks for none."""
        times: dict[int, list[float]] = {0: [], 1: []}
        base, cap = stage.scaled(0.5), stage.scaled(2.0)

        async def fail(number: int, _attempt: int) -> None:
            times[number].append(stage.clock.monotonic())
            raise (RuntimeError("no"), Retry(after=0))[number]

        bus = stage.bus(settings={"attempts": 5, "backoff_base": base, "backoff_cap": cap})
        keep(bus, Ordered, fail)
        async with stage.running(bus):
            for number in times:
                await bus.publish(Ordered(number))
            await stage.until(lambda: bus.counts()["law/Ordered"].get("dead-letter", 0) >= 2)
        assert [len(each) for each in times.values()] == [5, 5]
        grown = [0.1 * min(cap, base * 2.0**attempt) for attempt in range(4)]
        for number, leasts in ((0, grown), (1, [0.1 * base] * 4)):
            waits = [after - before for before, after in pairwise(times[number])]
            assert all(
                waited >= least - _GRAIN for waited, least in zip(waits, leasts, strict=True)
            ), f"{waits} are shorter than {leasts}"

    @law(qos=1)
    async def test_the_handler_speaks_before_the_type_and_that_before_the_settings(
        self, stage: Stage
    ) -> None:
        """QoS 1, seventh law: the last attempt is what the application says it is, by handler, by
        message type, and by the nearest class of the error."""
        errors: list[type[Exception]] = [ValueError, IndexError, KeyError]

        async def fail(number: int, _attempt: int) -> None:
            raise errors[number]("no")

        bus = stage.bus(settings={"attempts": 4})
        by_error: dict[type[BaseException], RetryPolicy | None] = {
            Exception: RetryPolicy(attempts=1),
            LookupError: RetryPolicy(attempts=3),
            KeyError: None,
        }
        heard = {
            "settings": keep(bus, Ordered, fail, group="settings"),
            "type": keep(bus, Fragile, fail, group="type"),
            "handler": keep(
                bus, Fragile, fail, group="handler", retry=RetryPolicy(by_error=by_error)
            ),
        }
        async with stage.running(bus):
            for number in range(3):
                await bus.publish(Ordered(number))
                await bus.publish(Fragile(number))
            await stage.until(lambda: len(stage.tap.stored(Kind.DEAD)) >= 9)
        tried = {name: [each.numbers.count(n) for n in range(3)] for name, each in heard.items()}
        assert tried == {"settings": [4, 4, 4], "type": [2, 2, 2], "handler": [1, 3, 1]}
        causes = {each["cause"] for each in _letters(stage, "handler")}
        assert causes == {"attempts exhausted", "KeyError is never retried"}

    @law(qos=1)
    async def test_whatever_a_handler_ends_with_is_a_failed_attempt(self, stage: Stage) -> None:
        """QoS 1, third law: also what is no `Exception`, and a handler that cancels its own task:
        the message comes again, and its place in the window and its worker are free for others."""

        async def fail(number: int, attempt: int) -> None:
            if attempt > 1 or number == len(_ENDS) * 2:
                return
            if number % 2:
                await asyncio.sleep(0)
            await _ENDS[number // 2]()

        settings: dict[str, object] = {"prefetch": len(_ENDS) * 2 + 1, "concurrency": 2}
        bus = stage.bus(settings=settings)
        heard = keep(bus, Ordered, fail)
        numbers = list(range(len(_ENDS) * 2))
        async with stage.running(bus):
            await stage.wait(bus.publish_many(Ordered(number) for number in numbers))
            await stage.until(lambda: bus.counts()["law/Ordered"].get("ack", 0) >= len(numbers))
            await stage.wait(bus.publish(Ordered(len(numbers))))
            await stage.until(lambda: bus.counts()["law/Ordered"].get("ack", 0) > len(numbers))
            assert bus.counts()["law/Ordered"]["in-hand"] == 0
        twice = [(number, attempt) for number in numbers for attempt in (1, 2)]
        assert sorted(heard.calls) == [*twice, (len(numbers), 1)]

    @law(qos=1)
    async def test_a_handler_may_ask_to_be_tried_later(self, stage: Stage) -> None:
        """QoS 1, fourth and seventh law: `Retry(after=…)` is a lower bound, and a failed attempt
        like any other: after the last one the message is parked."""
        times: list[float] = []
        delay = stage.scaled(1.5)

        async def later(_number: int, _attempt: int) -> None:
            times.append(stage.clock.monotonic())
            raise Retry(after=delay)

        bus = stage.bus(settings={"attempts": 3})
        heard = keep(bus, Ordered, later)
        async with stage.running(bus):
            await bus.publish(Ordered(1))
            await stage.until(lambda: bus.counts()["law/Ordered"].get("dead-letter"))
        assert heard.calls == [(1, 1), (1, 2), (1, 3)]
        assert all(after - before >= delay - _GRAIN for before, after in pairwise(times))
        (letter,) = _letters(stage, "law")
        assert (letter["cause"], letter["attempts"]) == ("attempts exhausted", 3)

    @law(qos=1)
    async def test_a_handler_may_reject(self, stage: Stage) -> None:
        """Words: a rejection is a dead letter with a cause, at once."""

        async def reject(_number: int, _attempt: int) -> None:
            raise Reject("nobody wants it")

        bus = stage.bus()
        heard = keep(bus, Ordered, reject)
        async with stage.running(bus):
            await bus.publish(Ordered(1))
            await stage.until(lambda: bus.counts()["law/Ordered"].get("dead-letter"))
            assert "nack" not in bus.counts()["law/Ordered"]
        assert heard.calls == [(1, 1)]
        (letter,) = _letters(stage, "law")
        assert (letter["cause"], letter["attempts"]) == ("rejected", 1)
        assert "nobody wants it" in letter["error"]

    @law(qos=1)
    async def test_many_failing_messages_do_not_slow_the_good_ones(self, stage: Stage) -> None:
        """QoS 1, ninth law: whatever waits for its next attempt takes no room from others, also
        when there is more of it than the broker lets be in hand."""
        failed, good = range(150), range(1000, 1020)
        patience = {"backoff_base": 1000, "backoff_cap": 1000}  # no retry within this law
        settings = {**stage.harness.small, **patience, "prefetch": 20, "attempts": 2, "lease": 10.0}

        bus = stage.bus(settings=settings)
        tried: set[int] = set()

        @bus.handle(Ordered)
        async def handle(ordered: Ordered, context: Context) -> None:
            assert context.attempt == 1
            tried.add(ordered.number)
            if ordered.number in failed:
                raise RuntimeError("not yet")

        async with stage.running(bus):
            await stage.wait(bus.publish_many(map(Ordered, failed)))
            await stage.until(lambda: tried >= set(failed), 30.0)
            await stage.wait(bus.publish_many(map(Ordered, good)))
            await stage.until(lambda: tried >= set(good), 30.0)
            await stage.until(lambda: bus.counts()["law/Ordered"].get("ack") == len(good))
            assert "dead-letter" not in bus.counts()["law/Ordered"]

    @law(qos=1)
    async def test_however_many_wait_each_attempt_counts(self, stage: Stage) -> None:
        """QoS 1, seventh law: more failures at once than the broker lets be in hand; each is
        tried so often as it should be, and parked."""
        failed = range(80)
        pause = stage.scaled(1.0)
        patience = {"backoff_base": pause, "backoff_cap": pause}
        more = {"prefetch": 40, "attempts": 2, "lease": 10.0}  # none ends while a machine stalls
        settings = {**stage.harness.small, **patience, **more}

        async def fail(_number: int, _attempt: int) -> None:
            raise RuntimeError("not yet")

        bus = stage.bus(settings=settings)
        heard = keep(bus, Ordered, fail)
        async with stage.running(bus):
            await stage.wait(bus.publish_many(map(Ordered, failed)))
            await stage.until(
                lambda: bus.counts()["law/Ordered"].get("dead-letter") == len(failed), 30.0
            )
        assert sorted(heard.calls) == [(number, each) for number in failed for each in (1, 2)]

    @law(qos=1)
    async def test_a_message_that_ends_its_processes_is_parked_on_arrival(
        self, stage: Stage
    ) -> None:
        """QoS 1, seventh law: never stranded and never for ever, also when nobody lives to
        conclude an attempt; what was given back a few times is run all the same."""
        transport, bus = await stage.transport(), stage.bus(settings={"attempts": 1})
        ends, unlucky = keep(bus, Ordered, group="ends"), keep(bus, Ordered, group="unlucky")
        groups = {"ends": 1 + CRASH_MARGIN, "unlucky": CRASH_MARGIN}
        members = {
            group: await stage.member(transport, "Ordered", group, attempts=1) for group in groups
        }
        publisher = stage.bus(consume=False)
        async with stage.running(publisher):
            await stage.wait(publisher.publish(Ordered(1)))
        for group, times in groups.items():
            await _give_back(stage, members[group], 1, times)
        async with stage.running(bus):
            await stage.until(lambda: bus.counts()["unlucky/Ordered"].get("ack"))
            await stage.until(lambda: bus.counts()["ends/Ordered"].get("dead-letter"))
        assert (ends.calls, unlucky.calls) == ([], [(1, 1 + CRASH_MARGIN)])
        (letter,) = _letters(stage, "ends")
        assert (letter["cause"], letter["attempts"]) == ("attempts exhausted", 2 + CRASH_MARGIN)

    @law(qos=1)
    async def test_what_came_as_often_beside_such_a_message_is_run(self, stage: Stage) -> None:
        """QoS 1, seventh law: a broker counts what was only prefetched like what was begun. One is
        parked, the others are run one by one, so that the next one that ends them is known."""
        transport, bus = await stage.transport(), stage.bus(settings={"attempts": 1})
        at_once, most = 0, 0

        async def look(_number: int, _attempt: int) -> None:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0)
            at_once -= 1

        heard = keep(bus, Ordered, look)
        member = await stage.member(transport, "Ordered", "law", attempts=1)
        publisher = stage.bus(consume=False)
        async with stage.running(publisher):
            await stage.wait(publisher.publish_many(Ordered(number) for number in range(5)))
        await _give_back(stage, member, 5, 1 + CRASH_MARGIN)
        async with stage.running(bus):
            await stage.until(lambda: bus.counts()["law/Ordered"].get("ack") == 4)
        assert len(_letters(stage, "law")) == 1
        assert len(set(heard.numbers)) == 4
        assert most == 1


async def _give_back(stage: Stage, member: Subscription, count: int, times: int) -> None:
    """Let these deliveries be counted so often: as a broker counts when a consumer dies."""
    for _ in range(times - 1):
        for delivery in await stage.receive(member, count):
            assert await stage.settle(member, delivery, Nack(0.0)) == Done()
    held = await stage.receive(member, count)
    assert {delivery.attempt for delivery in held} == {times}
    await stage.wait(member.drain())  # so that it does not come here again
    for delivery in held:
        assert await stage.settle(member, delivery, Nack(0.0)) == Done()
    await stage.wait(member.close())


def _letters(stage: Stage, group: str) -> list[dict[str, Any]]:
    found = stage.tap.stored(Kind.DEAD)
    return [json.loads(each.body)["data"] for each in found if each.subject.group == group]
