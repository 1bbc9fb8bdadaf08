"""Groups: independent of each other, and their members share."""

from __future__ import annotations

import asyncio

from catga.spi import Ack, Delivery, Done, Nack, Reject, Settle, Start, Subscription
from catga.testing.contract.messages import Ordered, keep
from catga.testing.harness import law
from catga.testing.stage import Stage

__all__ = ["GroupsContract"]

_BODIES = [b"%d" % number for number in range(20)]


class GroupsContract:
    """Laws of consumer groups."""

    @law(qos=1)
    async def test_every_group_gets_everything_whatever_others_did_with_it(
        self, stage: Stage
    ) -> None:
        """QoS 1, eighth law: one group's settlement takes nothing from another, there or later."""
        transport = await stage.transport()
        first = await stage.member(transport, "Order", "first")
        second = await stage.member(transport, "Order", "second")
        await stage.store(transport, *(stage.out("Order", body) for body in _BODIES))
        found = await stage.receive(first, 20)
        assert [each.body for each in found] == _BODIES
        half = [Settle(each, Ack(), confirm=True) for each in found[:10]]
        half += [Settle(each, Reject("no"), confirm=True) for each in found[10:]]
        assert await stage.wait(first.settle(half)) == [Done()] * 20
        third = await stage.member(await stage.transport(), "Order", "third")
        for other in (second, third):
            found = await stage.receive(other, 20)
            assert [each.body for each in found] == _BODIES
            assert {each.attempt for each in found} == {1}

    @law(qos=1)
    async def test_one_groups_nack_is_nothing_to_another(self, stage: Stage) -> None:
        """QoS 1, eighth law: attempts are counted for each group."""
        transport = await stage.transport()
        first = await stage.member(transport, "Order", "first")
        second = await stage.member(transport, "Order", "second")
        await stage.store(transport, stage.out("Order"))
        (delivery,) = await stage.receive(first, 1)
        assert await stage.settle(first, delivery, Nack(0.0)) == Done()
        (again,) = await stage.receive(first, 1)
        (other,) = await stage.receive(second, 1)
        assert (again.attempt, other.attempt) == (2, 1)
        assert await stage.settle(second, other) == Done()
        await stage.nothing(second)
        assert await stage.settle(first, again) == Done()

    @law(qos=1)
    async def test_members_of_a_group_share(self, stage: Stage) -> None:
        """QoS 1, eighth law: each message goes to one member, and with no fault to one only."""
        goes_on = asyncio.Event()

        async def wait(_number: int, _attempt: int) -> None:
            await goes_on.wait()

        buses = [stage.bus(settings={"prefetch": 4}) for _ in range(2)]
        books = [keep(bus, Ordered, wait) for bus in buses]
        async with stage.running(*buses):
            await stage.wait(buses[0].publish_many(Ordered(number) for number in range(100)))
            await stage.until(lambda: [len(each.calls) for each in books] == [4, 4])
            goes_on.set()
            await stage.until(lambda: sum(len(each.calls) for each in books) >= 100)
            await stage.pass_time(0.3)
        assert sorted(books[0].numbers + books[1].numbers) == list(range(100))

    @law(qos=1)
    async def test_a_group_may_start_with_what_is_new_and_keeps_its_place(
        self, stage: Stage
    ) -> None:
        """QoS 1, words: the start holds for a group that did not exist; never again later."""
        transport = await stage.transport()
        await stage.store(transport, stage.out("Order", b"old"))
        member = await stage.member(transport, "Order", start=Start.NEW)
        await stage.store(transport, stage.out("Order", b"new"))
        (delivery,) = await stage.receive(member, 1)
        assert delivery.body == b"new"
        assert await stage.settle(member, delivery) == Done()
        await member.close()
        await stage.store(transport, stage.out("Order", b"newer"))
        for start in (Start.NEW, Start.BEGINNING):
            again = await stage.member(await stage.transport(), "Order", start=start)
            (delivery,) = await stage.receive(again, 1)
            assert delivery.body == b"newer"
            assert await stage.settle(again, delivery, Nack(0.0)) == Done()
            await again.close()

    @law(qos=1)
    async def test_a_group_gets_what_came_while_nobody_was_there(self, stage: Stage) -> None:
        """QoS 1, words: every group that exists gets it, also while it has no member."""
        transport = await stage.transport()
        member = await stage.member(transport, "Order")
        await stage.store(transport, stage.out("Order", b"1"))
        (delivery,) = await stage.receive(member, 1)
        assert await stage.settle(member, delivery) == Done()
        await transport.close()
        sender = await stage.transport()
        await stage.store(sender, *(stage.out("Order", body) for body in _BODIES))
        back = await stage.member(await stage.transport(), "Order")
        assert [each.body for each in await stage.receive(back, 20)] == _BODIES

    @law(qos=1)
    async def test_one_name_in_two_types_is_two_groups(self, stage: Stage) -> None:
        """QoS 1, words: a group belongs to one type."""
        transport = await stage.transport()
        orders = await stage.member(transport, "Order")
        bills = await stage.member(transport, "Bill")
        await stage.store(transport, stage.out("Order", b"order"), stage.out("Bill", b"bill"))
        for member, body in ((orders, b"order"), (bills, b"bill")):
            (delivery,) = await stage.receive(member, 1)
            assert delivery.body == body
            assert await stage.settle(member, delivery) == Done()
            await stage.nothing(member)

    @law(qos=1)
    async def test_a_broadcast_listener_gets_what_comes_while_it_listens(
        self, stage: Stage
    ) -> None:
        """QoS 1, words: without a group, everything that is stored while it listens, once."""
        transport = await stage.transport()
        await stage.store(transport, stage.out("Order", b"old"))
        listeners: list[Subscription] = [
            await stage.member(await stage.transport(), "Order", name, ephemeral=True)
            for name in ("one", "two")
        ]
        await stage.store(transport, *(stage.out("Order", body) for body in _BODIES))
        for listener in listeners:
            found: list[Delivery] = await stage.receive(listener, 20)
            assert [each.body for each in found] == _BODIES
            done = await listener.settle([Settle(each, Ack()) for each in found])
            assert done == [Done()] * 20
            await listener.close()
        assert len(await stage.copies("Order")) == 21
