"""Settling: what was acknowledged stays away, what was given back comes again, once each."""

from __future__ import annotations

from catga.spi import Done, Lost, Nack, Reject
from catga.testing.harness import law
from catga.testing.stage import Stage

__all__ = ["SettlementContract"]


class SettlementContract:
    """Laws of `Subscription.settle`."""

    @law(qos=1)
    async def test_what_was_acknowledged_never_comes_again(self, stage: Stage) -> None:
        """Not within the lease, not after it, not to another member."""
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
        """Whatever the first and the second were."""
        transport = await stage.transport()
        member = await stage.member(transport, "Order")
        await stage.store(transport, stage.out("Order"))
        (delivery,) = await stage.receive(member, 1)
        assert await stage.settle(member, delivery) == Done()
        for outcome in (None, Nack(0.0), Reject("late")):
            assert await stage.settle(member, delivery, outcome) == Lost()
        await stage.nothing(member)
