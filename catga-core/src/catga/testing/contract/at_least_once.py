"""Quality of service 1: what was accepted is handled in the end, or becomes a dead letter."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from catga.spi import Ack, Kind, Mode, Settle
from catga.testing.contract.messages import Ordered, keep
from catga.testing.harness import law
from catga.testing.stage import Stage

__all__ = ["AtLeastOnceContract"]


class AtLeastOnceContract:
    """Laws of QoS 1."""

    @law(qos=1)
    async def test_a_receipt_names_the_copy_that_is_delivered(self, stage: Stage) -> None:
        """QoS 1, first law: the receipt means stored."""
        # Who reports a batch before it is published cannot know what the broker will call it.
        transport = await stage.transport()
        batch = [stage.out("Order", b"%d" % number) for number in range(300)]
        receipts = await stage.store(transport, *batch)
        assert [each.message_id for each in receipts] == [each.message_id for each in batch]
        assert len({receipt.sequence for receipt in receipts} - {""}) == 300
        assert not any(receipt.duplicate for receipt in receipts)
        member = await stage.member(await stage.transport(), "Order", window=1000)
        found = await stage.receive(member, 300)
        assert [each.body for each in found] == [each.body for each in batch], "in order"
        assert [each.sequence for each in found] == [each.sequence for each in receipts]
        assert {each.attempt for each in found} == {1}

    @law(qos=1)
    async def test_what_was_published_before_the_first_start_is_delivered(
        self, stage: Stage
    ) -> None:
        """QoS 1, second law: a new group starts at the beginning of what is retained."""
        transport = await stage.transport()
        await stage.store(
            transport,
            stage.out("Order", b"log"),
            stage.out("Order", b"to", kind=Kind.TO, group="workers"),
            stage.out("Order", b"redo", kind=Kind.REDO, group="workers"),
        )
        member = await stage.member(await stage.transport(), "Order")
        found = await stage.receive(member, 3)
        assert {each.body for each in found} == {b"log", b"to", b"redo"}
        assert all(each.subject.kind.value.encode() == each.body for each in found)

    @law(qos=1)
    async def test_a_handler_that_raises_gets_it_again_as_the_next_attempt(
        self, stage: Stage
    ) -> None:
        """QoS 1, third law: raise, and it is delivered again, attempt + 1; the first is 1."""

        async def fail_twice(_number: int, attempt: int) -> None:
            if attempt < 3:
                raise ValueError("not yet")

        bus = stage.bus()
        heard = keep(bus, Ordered, fail_twice)
        async with stage.running(bus):
            await bus.publish(Ordered(1))
            await stage.until(lambda: bus.counts()["law/Ordered"].get("ack"))
        assert heard.calls == [(1, 1), (1, 2), (1, 3)]

    @law(qos=1)
    async def test_a_handler_that_hangs_past_its_timeout_gets_it_again(self, stage: Stage) -> None:
        """QoS 1, third law: a hang is a failure; the lease alone would be kept for ever."""

        async def hang_once(_number: int, attempt: int) -> None:
            if attempt == 1:
                await asyncio.Event().wait()

        bus = stage.bus(settings={"handler_timeout": stage.scaled(0.5)})
        heard = keep(bus, Ordered, hang_once)
        async with stage.running(bus):
            await bus.publish(Ordered(1))
            await stage.until(lambda: bus.counts()["law/Ordered"].get("ack"))
        assert heard.calls == [(1, 1), (1, 2)]

    @law(qos=1)
    async def test_a_crash_in_mid_handler_hands_it_to_another(self, stage: Stage) -> None:
        """QoS 1, third law: acknowledged only after the handler succeeded."""

        async def hang(_number: int, _attempt: int) -> None:
            await asyncio.Event().wait()

        first, second = stage.bus(), stage.bus()
        begun, heard = keep(first, Ordered, hang), keep(second, Ordered)
        async with stage.running(first):
            await first.publish(Ordered(1))
            await stage.until(lambda: begun.calls)
            await stage.wait(first.close())  # not drained: as if it had gone
        async with stage.running(second):
            await stage.until(lambda: heard.calls)
            await stage.until(lambda: second.counts()["law/Ordered"].get("ack"))
        assert heard.calls == [(1, 2)]

    @law(qos=1)
    async def test_every_accepted_message_ends_handled_or_as_a_dead_letter(
        self, stage: Stage
    ) -> None:
        """QoS 1, words: per group, accepted = acknowledged + dead letters + in flight."""

        async def act(number: int, attempt: int) -> None:
            if number % 5 == 0 or (number % 3 == 0 and attempt == 1):
                raise ValueError("again")

        bus, other = stage.bus(settings={"attempts": 3}), stage.bus(group="other")
        heard, calm = keep(bus, Ordered, act), keep(other, Ordered)
        async with stage.running(bus, other):
            summary = await stage.wait(bus.publish_many(Ordered(number) for number in range(60)))
            assert (summary.accepted, summary.failures) == (60, ())
            counts = bus.counts
            await stage.until(lambda: _ended(counts()["law/Ordered"]) >= 60)
            await stage.until(lambda: _ended(other.counts()["other/Ordered"]) >= 60)
            ended, calmly = counts()["law/Ordered"], other.counts()["other/Ordered"]
        assert (ended["ack"], ended["dead-letter"]) == (48, 12)
        assert (calmly["ack"], calmly.get("dead-letter", 0)) == (60, 0)
        assert len({each.message_id for each in stage.tap.stored(Kind.DEAD)}) == 12
        assert calm.numbers == list(range(60)), "what one group fails at is nothing to another"
        assert [number for number in heard.numbers if number % 5 == 0] == sorted(
            list(range(0, 60, 5)) * 3
        )
        assert len(await stage.copies("Ordered")) == 60

    @law(qos=1)
    async def test_a_small_window_lets_everything_through(self, stage: Stage) -> None:
        """QoS 1, last law: buffers are bounded by settings, and nothing is dropped for it."""
        bus = stage.bus(settings={"prefetch": 4, "concurrency": 2})
        heard = keep(bus, Ordered)
        async with stage.running(bus):
            summary = await stage.wait(bus.publish_many(Ordered(number) for number in range(200)))
            assert summary.accepted == 200
            await stage.until(lambda: len(heard.calls) >= 200)
        assert heard.numbers == list(range(200))

    @law(qos=1)
    async def test_what_is_not_settled_is_never_trimmed(self, stage: Stage) -> None:
        """QoS 1, words: a group gets the message while it is retained; a trimmer removes only
        what every declared group has settled and what is older than W."""
        transport = await stage.transport()
        young = max(0.2, stage.scaled(1.0))
        window = {"dedupe_window": young, "retention": young}
        await transport.prepare(stage.topology(stage.source("Order", "slow")), Mode.CREATE)
        quick = await stage.member(transport, "Order", "quick")
        bodies = [b"%d" % number for number in range(50)]
        await stage.store(transport, *(stage.out("Order", body) for body in bodies), **window)
        for delivery in await stage.receive(quick, 50):
            await quick.settle([Settle(delivery, Ack())])
        await stage.pass_time(3)
        await stage.store(transport, stage.out("Order", b"last"), **window)
        slow = await stage.member(transport, "Order", "slow")
        found = {each.body for each in await stage.receive(slow, 51)}
        assert found == {*bodies, b"last"}


def _ended(counts: Mapping[str, int]) -> int:
    return counts.get("ack", 0) + counts.get("dead-letter", 0)
