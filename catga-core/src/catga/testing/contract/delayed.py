"""Delayed delivery: stored at once, and for no group before its time."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec.structs import replace

from catga.errors import CapabilityError, ConfigurationError
from catga.model.capability import Capability
from catga.spi import Done, Kind, Outgoing
from catga.testing.contract.messages import Ordered, Ticked, keep
from catga.testing.harness import Ability, law
from catga.testing.raising import raises
from catga.testing.stage import Stage

__all__ = ["DelayedContract"]

_DELAY = [Capability.DELAY]


class DelayedContract:
    """Laws of `Outgoing.not_before`, and of `delay` and `at`."""

    @law(qos=1, needs=_DELAY)
    async def test_a_delayed_message_does_not_come_before_its_time(self, stage: Stage) -> None:
        """QoS 1, words: held back for every group; what is not delayed overtakes it."""
        transport = await stage.transport()
        lease = stage.scaled(60.0)  # what one is handed meanwhile must wait for its turn here
        members = [
            await stage.member(transport, "Order", group, lease=lease) for group in ("one", "two")
        ]
        due = _in(stage, 1.5)
        for body, when in ((b"much later", _in(stage, 10_000.0)), (b"later", due)):
            await stage.store(transport, _at(stage.out("Order", body), when))
        await stage.store(transport, stage.out("Order", b"now"))
        for member in members:
            came = []
            for _ in range(2):
                (delivery,) = await stage.receive(member, 1)
                came.append(delivery.body)
                assert delivery.attempt == 1
                assert delivery.body != b"later" or stage.clock.now() >= due
                assert await stage.settle(member, delivery) == Done()
            assert sorted(came) == [b"later", b"now"], "what waits longer blocks nobody"
            await stage.nothing(member)

    @law(qos=1, needs=_DELAY)
    async def test_what_is_delayed_for_one_group_reaches_it_alone(self, stage: Stage) -> None:
        """QoS 1, words: what is sent to a group may be delayed as well."""
        transport = await stage.transport()
        mine = await stage.member(transport, "Order", "mine")
        other = await stage.member(transport, "Order", "other")
        due = _in(stage, 1.0)
        letter = stage.out("Order", b"mine", kind=Kind.TO, group="mine")
        await stage.store(transport, _at(letter, due))
        (delivery,) = await stage.receive(mine, 1)
        assert (delivery.body, delivery.subject) == (b"mine", letter.subject)
        assert stage.clock.now() >= due
        assert await stage.settle(mine, delivery) == Done()
        await stage.nothing(other)

    @law(qos=1, needs=_DELAY)
    async def test_a_delayed_message_outlives_who_sent_it(self, stage: Stage) -> None:
        """QoS 1, first law: its receipt means stored; it needs its sender no longer, and reaches
        a group that comes later."""
        sender = await stage.transport()
        due = _in(stage, 1.5)
        (receipt,) = await stage.store(sender, _at(stage.out("Order", b"later"), due))
        assert receipt.sequence
        await stage.wait(sender.close())
        member = await stage.member(await stage.transport(), "Order")
        (delivery,) = await stage.receive(member, 1)
        assert delivery.body == b"later"
        assert stage.clock.now() >= due
        assert await stage.settle(member, delivery) == Done()

    @law(qos=2, needs=_DELAY)
    async def test_a_delayed_message_is_stored_once(self, stage: Stage) -> None:
        """QoS 2, first law: within W one id is stored once, while it waits and afterwards."""
        transport = await stage.transport()
        member = await stage.member(transport, "Charge")
        message = _at(stage.out("Charge", b"once", qos=2), _in(stage, 1.0))
        (first,) = await stage.store(transport, message)
        (again,) = await stage.store(transport, message)
        assert (first.duplicate, again.duplicate) == (False, True)
        (delivery,) = await stage.receive(member, 1)
        assert await stage.settle(member, delivery) == Done()
        (late,) = await stage.store(transport, message)
        assert late.duplicate
        await stage.nothing(member)

    @law(qos=1, needs=[Capability.DELAY, Ability.RESTART])
    async def test_a_delayed_message_survives_a_restart_of_the_broker(self, stage: Stage) -> None:
        """QoS 1, first law: durable where the transport is, while it waits too."""
        transport = await stage.transport()
        due = _in(stage, 3.0)
        await stage.store(transport, _at(stage.out("Order", b"later"), due))
        await transport.close()
        restart = stage.harness.restart
        assert restart is not None
        await restart()
        member = await stage.member(await stage.transport(), "Order")
        (delivery,) = await stage.receive(member, 1, 30.0)
        assert delivery.body == b"later"
        assert stage.clock.now() >= due
        assert await stage.settle(member, delivery) == Done()

    @law(qos=1, needs=_DELAY)
    async def test_a_bus_delays_by_a_time_or_until_one(self, stage: Stage) -> None:
        """QoS 1, words: seconds, a `timedelta`, or a moment; what is past is due at once."""
        bus = stage.bus()
        heard, came = keep(bus, Ordered), {}

        @bus.handle(Ordered, group="times")
        async def note(ordered: Ordered) -> None:
            came[ordered.number] = stage.clock.now()

        soon, later = stage.scaled(1.0), stage.scaled(2.0)
        async with stage.running(bus):
            begun = stage.clock.now()
            await bus.publish(Ordered(3), delay=later)
            await bus.publish(Ordered(2), at=begun + timedelta(seconds=soon))
            await bus.send(Ordered(4), to="law", delay=timedelta(seconds=later))
            await bus.publish(Ordered(1), at=begun - timedelta(days=1))
            await bus.publish(Ordered(0), delay=0)
            await stage.until(lambda: len(heard.calls) == 5 and len(came) == 4)
        assert {number for number, _ in heard.calls[:2]} == {0, 1}, "they were due at once"
        assert came[2] >= begun + timedelta(seconds=soon)
        assert came[3] >= begun + timedelta(seconds=later)

    @law(qos=1)
    async def test_a_delay_works_or_is_refused(self, stage: Stage) -> None:
        """Words: what a transport cannot do is refused, never done at once instead; so is what
        makes no sense."""
        bus = stage.bus(consume=False)
        async with stage.running(bus):
            if Capability.DELAY in stage.anchor.capabilities:
                await bus.publish(Ordered(1), delay=0.01)
            else:
                for send in (
                    bus.publish(Ordered(1), delay=5),
                    bus.send(Ordered(1), to="x", delay=5),
                ):
                    with raises(CapabilityError, naming="delay"):
                        await send
                assert stage.tap.published == [], "nothing was sent"
            with raises(ConfigurationError, naming="time zone"):
                await bus.publish(Ordered(2), at=datetime(2099, 1, 1))  # noqa: DTZ001 - on purpose
            with raises(ConfigurationError, naming="one of the two"):
                await bus.publish(Ordered(2), delay=1, at=stage.clock.now())
            for wrong in (float("nan"), float("inf"), 1e300):
                with raises(ConfigurationError, naming="delay"):
                    await bus.publish(Ordered(2), delay=wrong)

    @law(qos=0)
    async def test_what_is_not_stored_cannot_be_delayed(self, stage: Stage) -> None:
        """QoS 0, words: nothing is stored, so a delay is refused."""
        bus = stage.bus(consume=False)
        async with stage.running(bus):
            with raises(ConfigurationError, naming="QoS 0"):
                await bus.publish(Ticked(1), delay=5)
        assert stage.tap.published == []


def _in(stage: Stage, seconds: float) -> datetime:
    return stage.clock.now() + timedelta(seconds=stage.scaled(seconds))


def _at(outgoing: Outgoing, due: datetime) -> Outgoing:
    return replace(outgoing, not_before=due)
