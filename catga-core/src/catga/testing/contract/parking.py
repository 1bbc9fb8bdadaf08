"""Parking: the dead letter and then the settlement, in one step where that can be, or neither."""

from __future__ import annotations

from catga.model.capability import Capability
from catga.spi import Done, Kind, Lost, Outgoing, Subject, Transport
from catga.testing.contract.letters import fail
from catga.testing.contract.messages import Ordered, keep
from catga.testing.harness import law
from catga.testing.stage import Stage

__all__ = ["ParkingContract"]


class ParkingContract:
    """Laws of what is parked, and of `Subscription.park`."""

    @law(qos=1)
    async def test_what_cannot_be_parked_is_not_settled_and_comes_again(self, stage: Stage) -> None:
        """QoS 1, seventh law: parked as a dead letter, then settled: while no letter can be stored
        its original stays where it is."""
        bus = stage.bus(settings={"attempts": 1})
        keep(bus, Ordered, fail)
        stage.tap.refused.add(Kind.DEAD)
        async with stage.running(bus):
            await bus.publish(Ordered(1))
            await stage.until(lambda: bus.counts()["law/Ordered"].get("nack"))
            assert "dead-letter" not in bus.counts()["law/Ordered"]
            assert stage.tap.stored(Kind.DEAD) == []
            stage.tap.refused.clear()
            await stage.until(lambda: bus.counts()["law/Ordered"].get("dead-letter"))
        (letter,) = stage.tap.stored(Kind.DEAD)
        assert b"number 1 fails" in letter.body

    @law(qos=1, needs=[Capability.PARK, Capability.DEAD_LETTERS])
    async def test_parking_stores_the_letter_and_settles(self, stage: Stage) -> None:
        """QoS 1, seventh law: parked as a dead letter, then settled; each one of a batch."""
        transport = await stage.transport()
        member = await stage.member(transport, "Order")
        await stage.store(transport, *(stage.out("Order", b"%d" % n) for n in range(10)))
        found = await stage.receive(member, 10)
        pairs = [(each, _letter(stage, b"letter " + each.body)) for each in found]
        assert await stage.wait(member.park(pairs)) == [Done()] * 10
        assert await member.park([]) == []
        assert await stage.wait(member.park(pairs)) == [Lost()] * 10, "it is settled"
        assert sorted(await _stored(stage, transport)) == sorted(one.body for _, one in pairs)
        other = await stage.member(await stage.transport(), "Order")
        await stage.nothing(other, 3)

    @law(qos=1, needs=[Capability.PARK, Capability.DEAD_LETTERS])
    async def test_a_late_parking_is_lost_and_stores_nothing(self, stage: Stage) -> None:
        """QoS 1, sixth law: an expired owner parks nothing; the message is another's."""
        transport = await stage.transport()
        late = await stage.member(transport, "Order")
        await stage.store(transport, stage.out("Order", b"mine"))
        (held,) = await stage.receive(late, 1)
        await stage.wait(late.drain())
        owner = await stage.member(await stage.transport(), "Order")
        (taken,) = await stage.receive(owner, 1)
        assert await stage.wait(late.park([(held, _letter(stage, b"late"))])) == [Lost()]
        assert await _stored(stage, transport) == []
        assert await stage.wait(owner.extend([taken])) == [Done()], "it is still the owner's"
        assert await stage.wait(owner.park([(taken, _letter(stage, b"owner"))])) == [Done()]
        assert await _stored(stage, transport) == [b"owner"]


def _letter(stage: Stage, body: bytes) -> Outgoing:
    return stage.out("Order", body, qos=2, kind=Kind.DEAD, group="workers")


async def _stored(stage: Stage, transport: Transport) -> list[bytes]:
    subject = Subject(stage.namespace, Kind.DEAD, "Order", "workers")
    store = transport.dead_letters
    assert store is not None
    return [letter.body for letter in await stage.wait(store.read(subject))]
