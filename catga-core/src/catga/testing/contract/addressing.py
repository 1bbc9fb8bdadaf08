"""Addressing: a message reaches who it is for, and nobody else."""

from __future__ import annotations

import attrs

from catga.errors import ConfigurationError
from catga.model.capability import Capability
from catga.spi import Kind, Mode, Outgoing, QualityOfService, Source, Subject
from catga.testing.contract.messages import Ordered
from catga.testing.harness import law
from catga.testing.raising import raises
from catga.testing.stage import Stage

__all__ = ["AddressingContract"]

_BAD = ["", " ", "a b", "a.b", "*", ">", "a*", "{x}", "a\r\nb", "\x00", "ä", "a:b", "x" * 65]
_STORED = [Kind.TO, Kind.REDO]


class AddressingContract:
    """Laws of subjects."""

    @law(qos=1)
    async def test_what_is_sent_to_one_group_reaches_only_that_group(self, stage: Stage) -> None:
        """QoS 1, words: `send` and the replay of a dead letter are for one group."""
        transport = await stage.transport()
        near, far = [await stage.member(transport, "Order", group) for group in ("near", "far")]
        to_near = [stage.out("Order", b"near", kind=kind, group="near") for kind in _STORED]
        await stage.store(transport, *to_near, stage.out("Order", b"all"))
        found = await stage.receive(near, 3)
        assert sorted(each.body for each in found) == [b"all", b"near", b"near"]
        assert {each.subject for each in found} >= {each.subject for each in to_near}
        assert [each.body for each in await stage.receive(far, 1)] == [b"all"]
        await stage.nothing(far)

    @law(qos=0, needs=[Capability.LIVE_GROUPS])
    async def test_what_is_sent_live_to_one_group_reaches_only_that_group(
        self, stage: Stage
    ) -> None:
        """QoS 0, words: one member of that group, and no listener beside it."""
        transport = await stage.transport()
        near, far, none = [
            await stage.member(transport, "Tick", group, durable=False)
            for group in ("near", "far", "")
        ]
        sent = stage.out("Tick", b"near", qos=0, kind=Kind.LIVE_TO, group="near")
        await stage.store(transport, sent, stage.out("Tick", b"all", qos=0))
        found = await stage.receive(near, 2)
        assert sorted(each.body for each in found) == [b"all", b"near"]
        assert sent.subject in {each.subject for each in found}
        for other in (far, none):
            assert [each.body for each in await stage.receive(other, 1)] == [b"all"]
            await stage.nothing(other)

    @law(qos=1)
    async def test_types_and_groups_with_alike_names_are_kept_apart(self, stage: Stage) -> None:
        """QoS 1, words: a subject is its tokens; none is the prefix of another."""
        transport = await stage.transport()
        names = ["Order", "Order-2", "order", "Ord"]
        members = [await stage.member(transport, name) for name in names]
        await stage.store(transport, *(stage.out(name, name.encode()) for name in names))
        await stage.store(transport, stage.out("Order", b"to", kind=Kind.TO, group="workers-2"))
        for name, member in zip(names, members, strict=True):
            (found,) = await stage.receive(member, 1)
            assert found.body == name.encode()
        await stage.nothing(members[0])

    @law(qos=1)
    async def test_namespaces_are_kept_apart(self, stage: Stage) -> None:
        """QoS 1, words: an application sees its own, and removing one leaves its neighbour."""
        transport = await stage.transport()
        other = f"{stage.namespace}-2"
        stage.namespaces.append(other)
        mine = await stage.member(transport, "Order")
        theirs = stage.source("Order")
        theirs = attrs.evolve(theirs, namespace=other)
        topology = attrs.evolve(stage.topology(theirs, publishes=["Order"]), namespace=other)
        await transport.prepare(topology, Mode.CREATE)
        neighbour = await transport.subscribe(theirs)
        subject = Subject(other, Kind.LOG, "Order")
        for body in (b"one", b"two"):
            message = Outgoing(subject, body, body.decode(), QualityOfService.AT_LEAST_ONCE)
            await stage.wait(transport.publish([message]))
        await stage.nothing(mine)
        await stage.wait(transport.remove(stage.namespace))
        found = await stage.receive(neighbour, 2)
        assert [each.body for each in found] == [b"one", b"two"]

    @law(qos=0)
    async def test_namespaces_and_types_are_kept_apart_live(self, stage: Stage) -> None:
        """QoS 0, words: each live listener gets what is for it."""
        transport = await stage.transport()
        mine = await stage.member(transport, "Tick", "", durable=False)
        elsewhere = Subject(f"{stage.namespace}-2", Kind.LIVE, "Tick")
        stranger = Outgoing(elsewhere, b"else", "m-1", QualityOfService.AT_MOST_ONCE)
        await stage.store(
            transport,
            stranger,
            stage.out("Tick-2", b"type", qos=0),
            stage.out("Tick", b"mine", qos=0),
        )
        assert [each.body for each in await stage.receive(mine, 1)] == [b"mine"]
        await stage.nothing(mine)

    @law(qos=1)
    async def test_a_dead_letter_is_nobodys_delivery(self, stage: Stage) -> None:
        """QoS 1, seventh law: what is parked stays parked, for groups of then and of later."""
        transport = await stage.transport()
        member = await stage.member(transport, "Order")
        dead = stage.out("Order", b"dead", qos=2, kind=Kind.DEAD, group="workers")
        (receipt,) = await stage.store(transport, dead)
        assert not receipt.duplicate
        await stage.store(transport, stage.out("Order", b"alive"))
        later = await stage.member(transport, "Order", "later")
        for each in (member, later):
            assert [one.body for one in await stage.receive(each, 1)] == [b"alive"]
            await stage.nothing(each)
        (again,) = await stage.store(transport, dead)
        assert again.duplicate, "it was stored"

    @law(qos=0)
    async def test_replies_reach_the_bus_that_asked(self, stage: Stage) -> None:
        """QoS 0, words: the subject of a response names one instance and one request."""
        transport = await stage.transport()
        for name in ("one", "two"):
            source = Source(stage.namespace, group=name, reply=True)
            asker = await transport.subscribe(source)
            sent = [
                stage.out(token, body, qos=0, kind=Kind.REPLY, group=group)
                for token, body, group in (("t-1", b"else", "three"), ("t-2", b"mine", name))
            ]
            await transport.publish(sent)
            (found,) = await stage.receive(asker, 1)
            assert (found.body, found.subject) == (b"mine", sent[1].subject)
            await stage.nothing(asker)

    @law()
    async def test_names_that_cannot_stand_in_a_subject_are_refused(self, stage: Stage) -> None:
        """Faults, hostile names: refused before anything is sent, for every kind of name."""
        bus = stage.bus(consume=False)
        async with stage.running(bus):
            for word in _BAD:
                with raises(ConfigurationError):
                    await bus.send(Ordered(1), to=word)
                with raises(ConfigurationError):
                    stage.bus(namespace=word)
                with raises(ConfigurationError):
                    Subject(stage.namespace, Kind.LOG, word)
            for message_id in ("", "a b", "a\nb", "x" * 129):
                with raises(ConfigurationError):
                    await bus.publish(Ordered(1), message_id=message_id)
            for name, value in (("Nats-Msg-Id", "x"), ("a", "b\r\nc"), ("id", "x"), ("", "x")):
                with raises(ConfigurationError):
                    await bus.publish(Ordered(1), headers={name: value})
        assert stage.tap.published == []
