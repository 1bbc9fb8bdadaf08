"""Quality of service 0: zero or one time, and exactly once while nothing fails."""

from __future__ import annotations

import math

from catga.errors import CatgaError
from catga.model.capability import Capability
from catga.spi import Rejected
from catga.testing.contract.messages import Ticked, keep
from catga.testing.harness import law
from catga.testing.stage import Stage

__all__ = ["AtMostOnceContract"]

_BODIES = [b"%d" % number for number in range(50)]


class AtMostOnceContract:
    """Laws of QoS 0."""

    @law(qos=0)
    async def test_every_live_listener_gets_each_message_exactly_once(self, stage: Stage) -> None:
        """QoS 0, first law: never twice; with no fault and a live subscriber, exactly once."""
        there = [await stage.transport() for _ in range(2)]
        listeners = [await stage.member(each, "Tick", "", durable=False) for each in there]
        sender = await stage.transport()
        receipts = await stage.store(sender, *(stage.out("Tick", body, qos=0) for body in _BODIES))
        assert {receipt.sequence for receipt in receipts} == {""}, "nothing was stored"
        for listener in listeners:
            found = await stage.receive(listener, len(_BODIES))
            assert sorted(each.body for each in found) == sorted(_BODIES)
            assert {(each.attempt, each.lease_until) for each in found} == {(1, math.inf)}
            await stage.nothing(listener)

    @law(qos=0, needs=[Capability.LIVE_GROUPS])
    async def test_one_member_of_each_group_gets_each_message(self, stage: Stage) -> None:
        """QoS 0, words: each live listener, and one member of each group, sees it once."""
        buses = [stage.bus(group="shared"), stage.bus(group="shared"), stage.bus(group="other")]
        first, second, other = [keep(bus, Ticked) for bus in buses]
        async with stage.running(*buses):
            for number in range(50):
                await buses[0].publish(Ticked(number))
            await stage.until(lambda: len(other.calls) >= 50)
            await stage.until(lambda: len(first.calls + second.calls) >= 50)
            await stage.pass_time(0.3)
        assert sorted(first.numbers + second.numbers) == list(range(50))
        assert other.numbers == list(range(50))

    @law(qos=0, needs=[Capability.LIVE_GROUPS])
    async def test_of_three_members_of_a_group_one_gets_each_message(self, stage: Stage) -> None:
        """QoS 0, words: one member of each group sees it, however many there are: who deals in
        turns, or in halves, is right for two and wrong for three."""
        buses = [stage.bus(group="shared") for _ in range(3)]
        books = [keep(bus, Ticked) for bus in buses]
        async with stage.running(*buses):
            for number in range(60):
                await buses[number % 3].publish(Ticked(number))
            await stage.until(lambda: sum(len(heard.calls) for heard in books) >= 60)
            await stage.pass_time(0.3)
        numbers = [number for heard in books for number in heard.numbers]
        assert sorted(numbers) == list(range(60))

    @law(qos=0)
    async def test_who_comes_later_gets_nothing_older(self, stage: Stage) -> None:
        """QoS 0, words: nothing is stored, retried or replayed."""
        sender, receiver = await stage.transport(), await stage.transport()
        await stage.store(sender, stage.out("Tick", b"old", qos=0))
        assert (await sender.health()).ok  # a round trip: the broker has passed it on
        listener = await stage.member(receiver, "Tick", "", durable=False)
        await stage.store(sender, stage.out("Tick", b"new", qos=0))
        assert [each.body for each in await stage.receive(listener, 1)] == [b"new"]
        await stage.nothing(listener)

    @law(qos=0, needs=[Capability.AT_LEAST_ONCE])
    async def test_nothing_of_it_is_stored(self, stage: Stage) -> None:
        """QoS 0, words: the log must not capture its subjects, whoever else stores the type."""
        transport = await stage.transport()
        group = await stage.member(transport, "Tick")
        await stage.store(transport, *(stage.out("Tick", b"live", qos=0) for _ in range(3)))
        await stage.store(transport, stage.out("Tick", b"stored"))
        assert [each.body for each in await stage.receive(group, 1)] == [b"stored"]
        assert await stage.copies("Tick") == [b"stored"]

    @law(qos=0)
    async def test_the_same_message_sent_twice_is_two_messages(self, stage: Stage) -> None:
        """QoS 0, words: no copy is remembered, so no id is a duplicate."""
        transport = await stage.transport()
        listener = await stage.member(transport, "Tick", "", durable=False)
        message = stage.out("Tick", b"again", qos=0)
        receipts = await stage.store(transport, message, message)
        receipts += await stage.store(transport, message)
        assert not any(receipt.duplicate for receipt in receipts)
        assert len(await stage.receive(listener, 3)) == 3

    @law(qos=0)
    async def test_a_closed_transport_refuses_instead_of_keeping_it(self, stage: Stage) -> None:
        """QoS 0, words: it refuses when disconnected; a client that buffers for later would lie."""
        transport = await stage.transport()
        await transport.close()
        (result,) = await transport.publish([stage.out("Tick", qos=0)])
        assert isinstance(result, Rejected)
        assert isinstance(result.error, CatgaError)

    @law(qos=0)
    async def test_a_failing_handler_changes_nothing_for_the_publisher_or_for_others(
        self, stage: Stage
    ) -> None:
        """QoS 0, second law: a handler's error is counted, never tried again, never told."""

        async def fail(number: int, attempt: int) -> None:
            raise ValueError(f"{number} in attempt {attempt}")

        bad, good = stage.bus(), stage.bus()
        failing = keep(bad, Ticked, fail, broadcast=True)
        others = keep(good, Ticked, broadcast=True)
        async with stage.running(bad, good):
            for number in range(5):
                receipt = await bad.publish(Ticked(number))
                assert receipt.message_id
            await stage.until(lambda: len(others.calls) >= 5 <= len(failing.calls))
            await stage.pass_time(0.5)
            counts = bad.counts()["broadcast/Ticked"]
        assert failing.calls == [(number, 1) for number in range(5)]
        assert others.numbers == list(range(5))
        assert counts["failed"] >= 5

    @law(qos=0)
    async def test_drain_still_hands_out_what_was_received(self, stage: Stage) -> None:
        """QoS 0, last law: drain handles what was received."""
        transport = await stage.transport()
        listener = await stage.member(transport, "Tick", "", durable=False)
        await stage.store(transport, *(stage.out("Tick", body, qos=0) for body in _BODIES))
        assert (await transport.health()).ok  # a round trip: the server has all of it
        await stage.wait(listener.drain())
        found: list[bytes] = []
        while batch := await stage.wait(listener.receive(7, 0.5)):
            found += [delivery.body for delivery in batch]
        assert sorted(found) == sorted(_BODIES)
