"""Leases: a delivery stays with its receiver while that one lives, and no longer."""

from __future__ import annotations

import asyncio

from catga.spi import Ack, Done, Lost, Nack, Reject, Settle, Subscription
from catga.testing.contract.messages import Ordered, keep
from catga.testing.harness import law
from catga.testing.stage import Stage

__all__ = ["LeaseContract"]

_GRACE = 3.0
"""Real seconds after the lease within which somebody must have noticed."""


class LeaseContract:
    """Laws of leases and of taking over."""

    @law(qos=1)
    async def test_a_delivery_says_until_when_it_is_ours(self, stage: Stage) -> None:
        """QoS 1, sixth law: the client stops by its own monotonic clock, so it must know."""
        transport = await stage.transport()
        member = await stage.member(transport, "Order")
        await stage.store(transport, stage.out("Order"))
        (delivery,) = await stage.receive(member, 1)
        now = stage.clock.monotonic()
        assert 0 < member.lease <= stage.lease * 1.01
        assert now < delivery.lease_until <= now + member.lease
        await stage.pass_time(0.5)
        before = delivery.lease_until
        assert await stage.wait(member.extend([delivery])) == [Done()]
        assert before < delivery.lease_until <= stage.clock.monotonic() + member.lease

    @law(qos=1)
    async def test_what_a_dead_member_held_is_taken_over_within_the_lease(
        self, stage: Stage
    ) -> None:
        """QoS 1, fifth law: a member that dies is taken over, all it held, as the next attempt."""
        bodies = [b"%d" % number for number in range(20)]
        transport = await stage.transport()
        dead = await stage.member(transport, "Order")
        await stage.store(transport, *(stage.out("Order", body) for body in bodies))
        held = await stage.receive(dead, 20)
        await stage.wait(dead.drain())  # it takes nothing more and keeps what it has: it hangs
        heir = await stage.member(await stage.transport(), "Order")
        early = stage.scaled(1.0)
        assert await stage.wait(heir.receive(20, early)) == [], "the lease has not ended"
        left = max(each.lease_until for each in held) - stage.clock.monotonic()
        found = await stage.receive(heir, 20, left + _GRACE)
        assert sorted(each.body for each in found) == sorted(bodies)
        assert {each.attempt for each in found} == {2}
        done = await stage.wait(heir.settle([Settle(each, Ack(), confirm=True) for each in found]))
        assert done == [Done()] * 20

    @law(qos=1)
    async def test_what_waited_in_the_client_is_ours_when_it_is_handed_out(
        self, stage: Stage
    ) -> None:
        """QoS 1, fifth and sixth law: what a client fetched before anybody asked is kept for us,
        or comes as the attempt that it is by now; it is never handed out after its lease."""
        member = await stage.member(await stage.transport(), "Order")
        await stage.store(stage.anchor, *(stage.out("Order", b"%d" % n) for n in range(5)))
        (first,) = await stage.receive(member, 1)
        assert await stage.settle(member, first) == Done()
        left = (first.lease_until - stage.clock.monotonic()) / stage.scaled(1.0)
        for seconds in (left + 0.02, 4.0):  # it has just ended; two leases more
            await stage.pass_time(seconds)
            attempts = await stage.wait(_give_back(stage, member, 4))
            for each in await stage.receive(member, 4):
                assert each.attempt > attempts.pop(each.body), "the count goes on"
                assert await stage.settle(member, each, Nack(0.0)) in {Done(), Lost()}

    @law(qos=1)
    async def test_an_extended_lease_is_kept(self, stage: Stage) -> None:
        """QoS 1, fifth law: one message is not run by two live members inside the lease."""
        transport = await stage.transport()
        member = await stage.member(transport, "Order")
        await stage.store(transport, stage.out("Order"))
        (delivery,) = await stage.receive(member, 1)
        other = await stage.member(await stage.transport(), "Order")
        for _ in range(8):  # half a lease each: four leases together
            assert await stage.wait(other.receive(1, stage.scaled(0.5))) == []
            await stage.pass_time(0.5)
            assert await stage.wait(member.extend([delivery])) == [Done()]
        assert await stage.settle(member, delivery) == Done()
        await stage.nothing(other)

    @law(qos=1)
    async def test_who_keeps_its_messages_for_a_shorter_time_takes_none_before_its_time(
        self, stage: Stage
    ) -> None:
        """QoS 1, fifth law: the lease of a delivery is that of its holder, whoever else is in the
        group and whatever that one was set to."""
        transport = await stage.transport()
        member = await stage.member(transport, "Order", lease=stage.scaled(20.0))
        await stage.store(transport, stage.out("Order"))
        (delivery,) = await stage.receive(member, 1)
        hasty = await stage.member(await stage.transport(), "Order", lease=stage.scaled(0.5))
        await stage.nothing(hasty, 2.5)
        assert await stage.settle(member, delivery) == Done()
        await stage.nothing(hasty)

    @law(qos=1)
    async def test_a_late_settlement_is_lost_and_leaves_the_new_owner_alone(
        self, stage: Stage
    ) -> None:
        """QoS 1, sixth law: a late settlement or extension by an expired owner has no effect."""
        transport = await stage.transport()
        late = await stage.member(transport, "Order")
        await stage.store(transport, *(stage.out("Order", b"%d" % n) for n in range(4)))
        held = await stage.receive(late, 4)
        await stage.wait(late.drain())
        owner = await stage.member(await stage.transport(), "Order")
        taken = await stage.receive(owner, 4)
        for delivery, outcome in zip(held, (Ack(), Nack(0.0), Reject("late")), strict=False):
            assert await stage.settle(late, delivery, outcome) == Lost()
        assert await stage.wait(late.extend([held[3]])) == [Lost()], "it steals nothing back"
        assert await stage.wait(owner.extend(taken)) == [Done()] * 4, "it still owns all of it"
        first = [each for each in taken if each.body != b"0"]
        done = await stage.wait(owner.settle([Settle(each, Ack(), confirm=True) for each in first]))
        assert done == [Done()] * 3
        (left,) = [each for each in taken if each.body == b"0"]
        assert await stage.settle(owner, left, Nack(0.0)) == Done()
        (again,) = await stage.receive(owner, 1)
        assert (again.body, again.attempt) == (b"0", 3), "the late acknowledgement took nothing"

    @law(qos=1)
    async def test_what_was_lost_takes_no_room_in_the_window(self, stage: Stage) -> None:
        """QoS 1, fifth and last law: who lost a delivery goes on with others."""
        transport = await stage.transport()
        slow = await stage.member(transport, "Order", window=1)
        await stage.store(transport, stage.out("Order", b"slow"))
        await stage.receive(slow, 1)  # and lets it expire
        other = await stage.member(await stage.transport(), "Order")
        await stage.wait(_settle_first(slow, other))
        await stage.wait(other.close())
        await stage.store(transport, stage.out("Order", b"next"))
        (found,) = await stage.receive(slow, 1)
        assert found.body == b"next"
        assert await stage.settle(slow, found) == Done()

    @law(qos=1)
    async def test_a_handler_longer_than_the_lease_keeps_its_message_and_what_waits_behind_it(
        self, stage: Stage
    ) -> None:
        """QoS 1, fifth law: while a handler runs its lease is extended, and what waits for a
        place is not run by anybody else either."""
        goes_on = asyncio.Event()

        async def wait(number: int, _attempt: int) -> None:
            if number == 0:
                await goes_on.wait()

        buses = [stage.bus(settings={"concurrency": 1}) for _ in range(2)]
        books = [keep(buses[0], Ordered, wait), keep(buses[1], Ordered, wait)]
        async with stage.running(buses[0]):
            await stage.wait(buses[0].publish_many(Ordered(number) for number in range(5)))
            await stage.until(lambda: books[0].calls)
            async with stage.running(buses[1]):
                await stage.pass_time(7)  # more than three leases
                goes_on.set()
                await stage.until(lambda: len(books[0].calls + books[1].calls) >= 5)
                await stage.pass_time(0.3)
        assert sorted(books[0].calls + books[1].calls) == [(number, 1) for number in range(5)]

    @law(qos=1)
    async def test_a_lease_has_a_limit_and_what_comes_after_it_has_no_effect(
        self, stage: Stage
    ) -> None:
        """QoS 1, fifth and sixth law: renewed up to a bound; then the handler is stopped, and
        another member has the message whatever the first one does about it."""
        stopped, over = asyncio.Event(), asyncio.Event()

        async def hold_on(_number: int, attempt: int) -> None:
            if attempt > 1:
                await over.wait()
                return
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                stopped.set()  # and succeeds all the same

        settings: dict[str, object] = {
            "handler_timeout": None,
            "lease_limit": stage.scaled(5.0),  # two leases and a half
        }
        buses = [stage.bus(settings=settings) for _ in range(2)]
        books = [keep(bus, Ordered, hold_on) for bus in buses]

        def told(word: str) -> int:
            return sum(bus.counts()["law/Ordered"].get(word, 0) for bus in buses)

        async with stage.running(*buses):
            await buses[0].publish(Ordered(1))
            await stage.until(lambda: books[0].calls + books[1].calls)
            before = stage.clock.monotonic()
            await stage.until(lambda: len(books[0].calls + books[1].calls) == 2)
            assert stage.clock.monotonic() - before >= stage.scaled(4.5), "it was kept so long"
            await stage.until(lambda: stopped.is_set() and told("lost") == 1)
            assert told("ack") == 0, "who lost it has settled it"
            over.set()
            await stage.until(lambda: told("ack") == 1)
        assert sorted(books[0].calls + books[1].calls) == [(1, 1), (1, 2)]


async def _give_back(stage: Stage, member: Subscription, count: int) -> dict[bytes, int]:
    """Give so many back that surely were ours; return their attempts, by their bodies."""
    attempts: dict[bytes, int] = {}
    while len(attempts) < count:
        found = await member.receive(count, 0.2)
        now = stage.clock.monotonic()
        assert all(each.lease_until > now for each in found), "it was not ours any more"
        results = await member.settle([Settle(each, Nack(0.0), confirm=True) for each in found])
        given = [each for each, done in zip(found, results, strict=True) if done == Done()]
        attempts |= {each.body: each.attempt for each in given}
        await asyncio.sleep(0)
    return attempts


async def _settle_first(*members: Subscription) -> None:
    """Acknowledge the first delivery that comes to any of these: each may be the one."""
    while True:
        for member in members:
            for delivery in await member.receive(1, 0.2):
                assert await member.settle([Settle(delivery, Ack(), confirm=True)]) == [Done()]
                return
        await asyncio.sleep(0)
