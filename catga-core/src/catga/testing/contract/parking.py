"""Parking in one step: the dead letter and the settlement, or neither."""

from __future__ import annotations

from catga.model.capability import Capability
from catga.spi import Done, Kind, Lost, Outgoing, Subject, Transport
from catga.testing.harness import law
from catga.testing.stage import Stage

__all__ = ["ParkingContract"]


class ParkingContract:
    """Laws of `Subscription.park`."""

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
