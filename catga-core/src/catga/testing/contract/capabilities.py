"""Capabilities: what is declared works, what is not declared is refused. Both directions."""

from __future__ import annotations

from catga.errors import CapabilityError, NoResponders, RequestTimeout
from catga.model.capability import QOS_CAPABILITY, Capability
from catga.spi import Commit, Kind, Nack, Record, Reject
from catga.testing.contract.messages import Asked, Charged, Ordered, Ticked, keep
from catga.testing.harness import law
from catga.testing.raising import raises
from catga.testing.stage import Stage

__all__ = ["CapabilitiesContract"]

_TYPES: tuple[type[Ticked | Ordered | Charged], ...] = (Ticked, Ordered, Charged)


class CapabilitiesContract:
    """Laws of what a transport says it can do."""

    @law()
    async def test_nothing_is_there_that_is_not_declared_and_what_is_missing_has_a_reason(
        self, stage: Stage
    ) -> None:
        """Words: the descriptor says what there is at best, the connected server decides."""
        capabilities = stage.anchor.capabilities
        assert capabilities.present <= stage.harness.declared
        for missing in stage.harness.declared - capabilities.present:
            assert capabilities.absent.get(missing), f"no reason why {missing.value} is missing"
        for capability in set(Capability) - capabilities.present:
            with raises(CapabilityError, naming=capability.value):
                capabilities.require(capability, "this law")

    @law()
    async def test_each_quality_works_or_refuses_to_start(self, stage: Stage) -> None:
        """Words: a promise that cannot be kept is refused at the start, never weakened."""
        there = stage.anchor.capabilities
        grouped = Capability.LIVE_GROUPS in there or Capability.AT_MOST_ONCE not in there
        for qos, capability in QOS_CAPABILITY.items():
            publisher = stage.bus(consume=False, publishes=[_TYPES[qos]])
            handler = stage.bus()
            heard = keep(handler, _TYPES[qos], broadcast=qos == 0)
            late = stage.bus(consume=False)
            if capability in there:
                taking_part = [handler, publisher] if grouped or qos == 0 else [publisher]
                async with stage.running(*taking_part):
                    await publisher.publish(_TYPES[qos](int(qos)))
                    if handler not in taking_part:
                        continue  # a group must also share what is sent at QoS 0
                    await stage.until(lambda heard=heard: heard.calls)  # type: ignore[misc]  # bound now
                continue
            for bus in (publisher, handler):
                with raises(CapabilityError, naming=capability.value):
                    async with stage.running(bus):
                        pass
            async with stage.running(late):
                with raises(CapabilityError, naming=capability.value):
                    await late.publish(_TYPES[qos](int(qos)))

    @law(qos=0)
    async def test_live_groups_share_or_are_refused(self, stage: Stage) -> None:
        """QoS 0, words: where members of a group would all get it, a group is refused."""
        bus = stage.bus()
        heard = keep(bus, Ticked)
        if Capability.LIVE_GROUPS in stage.anchor.capabilities:
            async with stage.running(bus):
                await bus.publish(Ticked(1))
                await stage.until(lambda: heard.calls)
            return
        with raises(CapabilityError, naming=Capability.LIVE_GROUPS.value):
            async with stage.running(bus):
                pass

    @law(qos=1)
    async def test_the_one_step_commit_is_there_or_refused(self, stage: Stage) -> None:
        """Words: asked for what it cannot do in one step, it does not do it in two."""
        transport = await stage.transport()
        member = await stage.member(transport, "Charge")
        await stage.store(transport, stage.out("Charge"))
        (delivery,) = await stage.receive(member, 1)
        commit = Commit(delivery, Record(stage.completion("Charge", "m-1")))
        if Capability.COMMIT in transport.capabilities:
            assert len(await stage.wait(member.commit([commit]))) == 1
            return
        with raises(CapabilityError):
            await stage.wait(member.commit([commit]))

    @law(qos=1)
    async def test_waiting_until_handled_is_there_or_refused(self, stage: Stage) -> None:
        """Words: `wait_handled` ends when every group has handled or parked it, not before;
        a transport that cannot tell says so."""
        transport = await stage.transport()
        first = await stage.member(transport, "Order", "first")
        second = await stage.member(transport, "Order", "second")
        outgoing = stage.out("Order")
        (receipt,) = await stage.store(transport, outgoing)
        stored = [(outgoing, receipt)]
        if Capability.HANDLED not in transport.capabilities:
            with raises(CapabilityError):
                await stage.wait(transport.wait_handled(stored))
            return
        waiting = stage.tasks.spawn(transport.wait_handled(stored), "wait until handled")
        (delivery,) = await stage.receive(first, 1)
        await stage.settle(first, delivery)
        (delivery,) = await stage.receive(second, 1)
        await stage.settle(second, delivery, Nack(0.0))
        await stage.pass_time(0.5)
        assert not waiting.done(), "one group has it still"
        (delivery,) = await stage.receive(second, 1)
        await stage.settle(second, delivery, Reject("parked"))
        await stage.until(waiting.done)
        assert waiting.result() is None
        await stage.wait(transport.wait_handled(stored))

    @law(qos=0)
    async def test_a_request_nobody_hears_fails_at_once_or_at_its_timeout(
        self, stage: Stage
    ) -> None:
        """QoS 0, words: where the broker can tell, the requester is told at once."""
        tells = Capability.NO_RESPONDERS in stage.anchor.capabilities
        bus = stage.bus(consume=False)
        async with stage.running(bus):
            before = stage.clock.monotonic()
            with raises(NoResponders if tells else RequestTimeout):
                await stage.wait(bus.request(Asked(1), to="nobody", timeout=5.0))
            if tells:
                assert stage.clock.monotonic() - before < 2.0

    @law(qos=0, needs=[Capability.LIVE_GROUPS])
    async def test_a_request_that_is_heard_is_answered(self, stage: Stage) -> None:
        """QoS 0, words: the answer comes to who asked, also to two who ask the same."""
        bus = stage.bus()
        askers = [stage.bus(service="asker", consume=False) for _ in range(2)]

        @bus.handle(Asked)
        async def answer(asked: Asked) -> int:
            return asked.number + 1

        async with stage.running(bus, *askers):
            for asker in askers:
                for number in range(5):
                    asking = asker.request(Asked(number), to="law", timeout=5.0)
                    assert await stage.wait(asking) == number + 1
        assert stage.tap.stored(Kind.DEAD) == []
