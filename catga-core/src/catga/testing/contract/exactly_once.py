"""Quality of service 2: one id is stored once, and what a group completed is not handled again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from catga.bus import Bus
from catga.model.qos import QualityOfService
from catga.spi import Kind, Mode, Outgoing
from catga.testing.contract.messages import Charged, Ordered, keep
from catga.testing.harness import law
from catga.testing.stage import Stage, accepted

__all__ = ["ExactlyOnceContract"]

T = TypeVar("T")


class ExactlyOnceContract:
    """Laws of QoS 2: on the publisher's side, then on the consumer's."""

    @law(qos=2)
    async def test_one_id_is_stored_once_and_the_repeat_names_the_original(
        self, stage: Stage
    ) -> None:
        """QoS 2, first law: within W one id is stored once; the receipt of the repeat says so."""
        one, two = await stage.transport(), await stage.transport()
        message = stage.out("Charge", b"first", qos=2, message_id="m-1")
        (original,) = await stage.store(one, message)
        assert not original.duplicate
        repeats = await stage.store(one, message) + await stage.store(two, message)
        assert all(each.duplicate for each in repeats)
        assert {each.sequence for each in repeats} == {original.sequence}
        assert {each.message_id for each in repeats} == {"m-1"}
        assert await stage.copies("Charge") == [b"first"]

    @law(qos=2)
    async def test_one_batch_may_hold_the_same_id_twice(self, stage: Stage) -> None:
        """QoS 2, first law: neither a batch nor its order hides a repeat."""
        transport = await stage.transport()
        first = stage.out("Charge", b"1", qos=2, message_id="m-1")
        second = stage.out("Charge", b"2", qos=2, message_id="m-2")
        receipts = await stage.store(transport, first, second, first, first, second)
        assert [each.duplicate for each in receipts] == [False, False, True, True, True]
        assert len({each.sequence for each in receipts}) == 2
        assert sorted(await stage.copies("Charge")) == [b"1", b"2"]

    @law(qos=2)
    async def test_concurrent_publishes_of_one_id_store_it_once(self, stage: Stage) -> None:
        """QoS 2, first law: from several processes at the same time."""
        there = [await stage.transport() for _ in range(4)]
        message = stage.out("Charge", b"once", qos=2)
        await stage.store(there[0], stage.out("Charge", b"before", qos=2))
        for each in there:
            await each.prepare(stage.topology(publishes=["Charge"], qos=2), Mode.CREATE)
        sent = asyncio.gather(*(each.publish([message]) for each in there for _ in range(5)))
        receipts = [accepted(result) for (result,) in await stage.wait(_await(sent))]
        assert sum(not each.duplicate for each in receipts) == 1
        assert len({each.sequence for each in receipts}) == 1
        assert await stage.copies("Charge") == [b"before", b"once"]

    @law(qos=2)
    async def test_the_same_body_under_another_id_is_another_message(self, stage: Stage) -> None:
        """QoS 2, words: the id decides, never the content."""
        transport = await stage.transport()
        receipts = await stage.store(
            transport, *(stage.out("Charge", b"same", qos=2) for _ in range(3))
        )
        assert not any(each.duplicate for each in receipts)
        assert await stage.copies("Charge") == [b"same"] * 3

    @law(qos=2)
    async def test_the_same_id_on_another_subject_is_stored_there_too(self, stage: Stage) -> None:
        """QoS 2, words: the key is subject and id; one id sent to three groups reaches three."""
        transport = await stage.transport()
        same: dict[str, Any] = {"qos": 2, "message_id": "m-1"}
        batch = [
            stage.out("Charge", b"log", **same),
            stage.out("Charge", b"a", kind=Kind.TO, group="a", **same),
            stage.out("Charge", b"b", kind=Kind.TO, group="b", **same),
            stage.out("Charge", b"redo", kind=Kind.REDO, group="a", **same),
            stage.out("Other", b"type", **same),
        ]
        receipts = await stage.store(transport, *batch)
        assert not any(each.duplicate for each in receipts)
        a, b = [await stage.member(transport, "Charge", group) for group in ("a", "b")]
        found = {each.body for each in await stage.receive(a, 3)}
        assert found == {b"log", b"a", b"redo"}
        assert {each.body for each in await stage.receive(b, 2)} == {b"log", b"b"}
        assert await stage.copies("Other") == [b"type"]

    @law(qos=2)
    async def test_a_publish_that_was_cancelled_and_repeated_is_stored_once(
        self, stage: Stage
    ) -> None:
        """QoS 2, first law: over cancelled publishes."""
        bus = stage.bus(consume=False, publishes=[Charged])
        async with stage.running(bus):
            messages = [Charged(number) for number in range(10)]
            for turns, message in enumerate(messages):
                task = asyncio.create_task(bus.publish(message))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert (await stage.wait(bus.publish(message))).message_id == message.message_id
        assert len(await stage.copies("Charged")) == 10
        assert len(stage.tap.stored(Kind.LOG)) == 10, "of two receipts one says duplicate"

    # ---- handling

    @law(qos=2)
    async def test_a_failed_message_is_handled_again(self, stage: Stage) -> None:
        """QoS 2, fourth law: never recorded before the handler succeeded."""
        buses: list[Bus] = []

        async def fail_once(_number: int, attempt: int) -> None:
            recorded = await _is_recorded(stage, buses[0], "m-1")
            assert not recorded, "recorded before it succeeded"
            if attempt == 1:
                raise ValueError("not yet")

        buses.append(stage.bus())
        bus = buses[0]
        heard = keep(bus, Charged, fail_once)
        async with stage.running(bus):
            await bus.publish(Charged(1), message_id="m-1")
            await stage.until(lambda: bus.counts()["law/Charged"].get("ack"))
            assert await stage.wait(_is_recorded(stage, bus, "m-1"))
        assert heard.calls == [(1, 1), (1, 2)]

    @law(qos=2)
    async def test_what_the_group_completed_is_not_handled_again(self, stage: Stage) -> None:
        """QoS 2, third law: a second delivery of a completed id is acknowledged, not handled;
        also by another process, and after the first has gone."""
        transport = await stage.transport()
        first, second = stage.bus(), stage.bus()
        heard, later = keep(first, Charged), keep(second, Charged)
        async with stage.running(first):
            await first.publish(Charged(1))
            (copy,) = stage.tap.stored(Kind.LOG)
            await stage.until(lambda: first.counts()["law/Charged"].get("ack") == 1)
            await stage.store(transport, _redo(stage, copy))
            await stage.until(lambda: first.counts()["law/Charged"].get("ack") == 2)
        await stage.store(transport, stage.out("Charged", copy.body, kind=Kind.TO, group="law"))
        async with stage.running(second):
            await second.publish(Charged(2))
            await stage.until(lambda: second.counts()["law/Charged"].get("ack") == 2)
        assert heard.calls == [(1, 1)]
        assert later.calls == [(2, 1)]

    @law(qos=2)
    async def test_another_group_handles_it_nevertheless(self, stage: Stage) -> None:
        """QoS 2, words: exactly once for each group: the record holds for one of them."""
        one, two = stage.bus(group="one"), stage.bus(group="two")
        first, second = keep(one, Charged), keep(two, Charged)
        async with stage.running(one):
            await one.publish(Charged(1))
            await stage.until(lambda: one.counts()["one/Charged"].get("ack"))
        async with stage.running(two):
            await stage.until(lambda: two.counts()["two/Charged"].get("ack"))
        assert first.calls == second.calls == [(1, 1)]

    @law(qos=2)
    async def test_two_copies_in_hand_are_handled_once(self, stage: Stage) -> None:
        """QoS 2, fourth law: who meets another's work waits or nacks, never acknowledges it."""

        async def fail_once(number: int, _attempt: int) -> None:
            await begin.wait()
            failures.append(number)
            if len(failures) == 1:
                raise ValueError("the copy behind it must be handled then")

        begin, failures = asyncio.Event(), list[int]()
        transport = await stage.transport()
        bus = stage.bus()
        heard = keep(bus, Charged, fail_once)
        async with stage.running(bus):
            await bus.publish(Charged(1))
            (copy,) = stage.tap.stored(Kind.LOG)
            await stage.store(transport, _redo(stage, copy))
            await stage.until(lambda: heard.calls)
            await stage.pass_time(0.5)
            begin.set()
            await stage.until(lambda: bus.counts()["law/Charged"].get("ack") == 2)
        assert len(heard.calls) == 2, "failed once, then handled once"

    @law(qos=2)
    async def test_a_group_that_expected_less_handles_a_stricter_message_once(
        self, stage: Stage
    ) -> None:
        """QoS 2, third law: the quality is that of the message; what it takes is made sure of when
        the first one comes."""
        transport = await stage.transport()
        bus, sender = stage.bus(), stage.bus(consume=False, inbox=None)
        heard = keep(bus, Ordered)
        async with stage.running(bus, sender):
            await stage.wait(sender.publish(Ordered(1)))
            await stage.until(lambda: bus.counts()["law/Ordered"].get("ack") == 1)
            await stage.wait(sender.publish(Ordered(2), qos=QualityOfService.EXACTLY_ONCE))
            await stage.until(lambda: bus.counts()["law/Ordered"].get("ack") == 2)
            copy = stage.tap.stored(Kind.LOG)[-1]
            await stage.store(transport, _redo(stage, copy))
            await stage.until(lambda: bus.counts()["law/Ordered"].get("ack") == 3)
        assert heard.calls == [(1, 1), (2, 1)]


def _redo(stage: Stage, copy: Outgoing) -> Outgoing:
    """Return the same message, stored once more for the group: as a replay would."""
    return stage.out(copy.subject.type, copy.body, qos=2, kind=Kind.REDO, group="law")


async def _is_recorded(stage: Stage, bus: Bus, message_id: str) -> bool:
    inbox = bus.transport.inbox
    assert inbox is not None, "exactly once needs completion records"
    (found,) = await inbox.completed([stage.completion("Charged", message_id, "law")])
    return found


async def _await(work: Awaitable[T]) -> T:
    return await work
