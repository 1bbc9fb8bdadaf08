"""Settling: what was acknowledged stays away, what was given back comes again, once each."""

from __future__ import annotations

from catga.spi import Ack, Done, Lost, Nack, Reject, Settle, Settlement
from catga.testing.harness import law
from catga.testing.stage import Stage

__all__ = ["SettlementContract"]


class SettlementContract:
    """Laws of `Subscription.settle`."""

    @law(qos=1)
    async def test_what_was_acknowledged_never_comes_again(self, stage: Stage) -> None:
        """QoS 1, words: acked is terminal; not within the lease, not after, not to another."""
        transport = await stage.transport()
        member = await stage.member(transport, "Order")
        await stage.store(transport, stage.out("Order"))
        (delivery,) = await stage.receive(member, 1)
        assert delivery.attempt == 1
        assert await stage.settle(member, delivery) == Done()
        other = await stage.member(await stage.transport(), "Order")
        await stage.nothing(other, 3)
        await stage.nothing(member)

    @law(qos=1)
    async def test_a_second_settlement_is_lost_and_has_no_effect(self, stage: Stage) -> None:
        """QoS 1, sixth law: whatever the first and the second were."""
        transport = await stage.transport()
        member = await stage.member(transport, "Order")
        firsts = (Ack(), Reject("no"), Nack(60.0))
        await stage.store(transport, *(stage.out("Order") for _ in firsts))
        for first, delivery in zip(firsts, await stage.receive(member, 3), strict=True):
            assert await stage.settle(member, delivery, first) == Done()
            for outcome in (None, Nack(0.0), Reject("late")):
                assert await stage.settle(member, delivery, outcome) == Lost()
            assert await stage.wait(member.extend([delivery])) == [Lost()]
        await stage.nothing(member)

    @law(qos=1)
    async def test_a_nack_comes_again_as_the_next_attempt_and_not_before_its_delay(
        self, stage: Stage
    ) -> None:
        """QoS 1, fourth law: nack's delay is a lower bound; a failing message never loops hot."""
        transport = await stage.transport()
        member = await stage.member(transport, "Order")
        await stage.store(transport, stage.out("Order"))
        delay, before = stage.scaled(1.0), 0.0
        for attempt in (1, 2, 3, 4):
            (delivery,) = await stage.receive(member, 1)
            assert delivery.attempt == attempt
            if attempt > 1:
                assert stage.clock.monotonic() - before >= delay
            before = stage.clock.monotonic()
            assert await stage.settle(member, delivery, Nack(delay)) == Done()

    @law(qos=1)
    async def test_what_is_given_back_does_not_wait_for_its_lease(self, stage: Stage) -> None:
        """QoS 1, fourth law: a nack is heard; whoever asks next has the message, at once or after
        the delay."""
        transport = await stage.transport()
        lease = stage.scaled(300.0)
        member = await stage.member(transport, "Order", lease=lease)
        await stage.store(transport, stage.out("Order"))
        for delay in (0.0, stage.scaled(0.5)):
            (delivery,) = await stage.receive(member, 1, lease / 4)
            assert await stage.settle(member, delivery, Nack(delay)) == Done()
        (delivery,) = await stage.receive(member, 1, lease / 4)
        assert delivery.attempt == 3
        assert await stage.settle(member, delivery) == Done()

    @law(qos=1)
    async def test_a_delay_longer_than_the_lease_is_kept(self, stage: Stage) -> None:
        """QoS 1, fourth law: no member takes over what only waits for its time."""
        transport = await stage.transport()
        member = await stage.member(transport, "Order")
        await stage.store(transport, stage.out("Order"))
        delay = 2 * stage.lease
        (delivery,) = await stage.receive(member, 1)
        before = stage.clock.monotonic()
        assert await stage.settle(member, delivery, Nack(delay)) == Done()
        await stage.wait(member.drain())
        other = await stage.member(await stage.transport(), "Order")
        (again,) = await stage.receive(other, 1)
        assert stage.clock.monotonic() - before >= delay
        assert again.attempt == 2

    @law(qos=1)
    async def test_what_is_given_back_at_once_can_be_taken_by_another(self, stage: Stage) -> None:
        """QoS 1, tenth law: what is given back is there for others, long before the lease ends."""
        transport = await stage.transport()
        member = await stage.member(transport, "Order", lease=stage.scaled(40.0))
        await stage.store(transport, *(stage.out("Order", b"%d" % n) for n in range(5)))
        held = await stage.receive(member, 5)
        await stage.wait(member.drain())  # it asks for nothing more
        other = await stage.member(await stage.transport(), "Order", lease=stage.scaled(40.0))
        results = await stage.wait(member.settle([Settle(each, Nack(0.0)) for each in held]))
        assert results == [Done()] * 5
        before = stage.clock.monotonic()
        found = await stage.receive(other, 5)
        assert stage.clock.monotonic() - before < stage.scaled(30.0)
        assert sorted(each.body for each in found) == [b"%d" % n for n in range(5)]
        assert {each.attempt for each in found} == {2}

    @law(qos=1)
    async def test_what_was_rejected_never_comes_again(self, stage: Stage) -> None:
        """QoS 1, words: a rejection is terminal for the group."""
        transport = await stage.transport()
        member = await stage.member(transport, "Order")
        reasons = ["", "no", "two\r\nlines", "ä" * 5000]
        await stage.store(transport, *(stage.out("Order") for _ in reasons))
        for reason, delivery in zip(reasons, await stage.receive(member, 4), strict=True):
            assert await stage.settle(member, delivery, Reject(reason)) == Done()
        other = await stage.member(await stage.transport(), "Order")
        await stage.nothing(other, 3)

    @law(qos=1)
    async def test_results_are_one_per_entry_in_order(self, stage: Stage) -> None:
        """Words: the results of a batch are values; one failure never raises for the others."""
        transport = await stage.transport()
        member = await stage.member(transport, "Order")
        await stage.store(transport, *(stage.out("Order", b"%d" % n) for n in range(6)))
        found = await stage.receive(member, 6)
        assert await stage.settle(member, found[1]) == Done()
        outcomes: list[Settlement] = [Ack(), Ack(), Nack(0.0), Reject("x"), Nack(60.0), Ack()]
        batch = [Settle(each, how) for each, how in zip(found, outcomes, strict=True)]
        results = await stage.wait(member.settle(batch))
        assert results == [Done(), Lost(), Done(), Done(), Done(), Done()]
        assert await member.settle([]) == []
        assert await member.extend([]) == []
        assert await stage.wait(member.settle(batch)) == [Lost()] * 6
        (again,) = await stage.receive(member, 1)
        assert (again.body, again.attempt) == (b"2", 2)
        await stage.nothing(member)

    @law(qos=1)
    async def test_one_that_waits_for_its_time_blocks_nobody(self, stage: Stage) -> None:
        """QoS 1, fourth law: others are delivered while a nacked one waits."""
        transport = await stage.transport()
        member = await stage.member(transport, "Order", window=2)
        await stage.store(transport, *(stage.out("Order", b"%d" % n) for n in range(6)))
        for delivery in await stage.receive(member, 2):
            assert await stage.settle(member, delivery, Nack(60.0)) == Done()
        for expected in (b"2", b"3", b"4", b"5"):
            (delivery,) = await stage.receive(member, 1)
            assert delivery.body == expected
            assert await stage.settle(member, delivery) == Done()
