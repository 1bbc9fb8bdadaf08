"""Recovery: what a transport does by itself once its broker or its connection is back."""

from __future__ import annotations

from catga.spi import (
    Done,
    EventKind,
    Lost,
    Outgoing,
    PublishResult,
    Receipt,
    Record,
    Rejected,
    Transport,
    Unknown,
)
from catga.testing.contract.messages import Charged, keep
from catga.testing.harness import Ability, law
from catga.testing.stage import Stage

__all__ = ["RecoveryContract"]


class RecoveryContract:
    """Laws of what is there again after a fault."""

    @law(qos=2, needs=[Ability.RESTART])
    async def test_ids_and_records_survive_a_restart_of_the_broker(self, stage: Stage) -> None:
        """QoS 2, first and third law: within W one id is stored once over a server restart, and
        what was completed stays so."""
        # Storage in memory, and records in it, would have forgotten both.
        transport = await stage.transport()
        message = stage.out("Charge", b"once", qos=2)
        key = stage.completion("Charge", message.message_id)
        (first,) = await stage.store(transport, message)
        inbox = await stage.inbox(transport, "Charge")
        assert await stage.wait(inbox.record([Record(key)])) == [Done()]
        await transport.close()
        await _restart(stage)
        back = await stage.transport()
        (repeat,) = await stage.store(back, message)
        assert (repeat.duplicate, repeat.sequence) == (True, first.sequence)
        inbox = await stage.inbox(back, "Charge")
        assert await stage.wait(inbox.completed([key])) == [True]

    @law(qos=2, needs=[Ability.RESTART])
    async def test_a_bus_goes_on_after_a_restart_of_the_broker(self, stage: Stage) -> None:
        """Faults, SIGKILL and restart: 0 lost, 0 extra, and nobody has to start the bus again."""
        bus = stage.bus()
        heard = keep(bus, Charged)
        async with stage.running(bus):
            for number in range(10):
                await stage.wait(bus.publish(Charged(number)))
            await stage.until(lambda: bus.counts()["law/Charged"].get("ack", 0) >= 10)
            await _restart(stage)
            for number in range(10, 20):
                await stage.wait(bus.publish(Charged(number)), 30.0)
            await stage.until(lambda: len(heard.calls) >= 20, 30.0)
            assert (await bus.health()).ok
        assert heard.numbers == list(range(20))

    @law(qos=1, needs=[Ability.CUT])
    async def test_a_subscription_goes_on_after_its_connection_was_cut(self, stage: Stage) -> None:
        """Faults, connection cut: repeats, but 0 lost; attempts go up by what was delivered."""
        proxy, url = await stage.proxy()
        transport = await stage.transport(url)
        member = await stage.member(transport, "Order")
        await stage.store(stage.anchor, *(stage.out("Order", b"%d" % n) for n in range(5)))
        held = await stage.receive(member, 5)
        proxy.cut()
        await stage.store(stage.anchor, *(stage.out("Order", b"%d" % n) for n in range(5, 10)))
        left = {b"%d" % n for n in range(10)}
        for delivery in held:
            result = await stage.settle(member, delivery)
            if isinstance(result, Done):
                left.discard(delivery.body)
            assert isinstance(result, Done | Lost | Unknown)
        while left:
            (delivery,) = await stage.receive(member, 1)
            if isinstance(await stage.settle(member, delivery), Done):
                left.discard(delivery.body)

    @law(qos=0, needs=[Ability.CUT])
    async def test_a_live_listener_goes_on_after_its_connection_was_cut(self, stage: Stage) -> None:
        """Faults, connection cut: a gap that the client sees is an event; then it listens again,
        and no message comes twice."""
        proxy, url = await stage.proxy()
        transport = await stage.transport(url)
        listener = await stage.member(transport, "Tick", "", durable=False)
        await stage.store(stage.anchor, stage.out("Tick", b"before", qos=0))
        assert [each.body for each in await stage.receive(listener, 1)] == [b"before"]
        proxy.cut()
        await stage.until(lambda: any(each.kind is EventKind.GAP for each in stage.events))
        for body in (b"after", b"later"):  # who subscribes again may be late for the first
            await stage.store(stage.anchor, stage.out("Tick", body, qos=0))
            assert [each.body for each in await stage.receive(listener, 1)] == [body]
            await stage.nothing(listener)

    @law(qos=0, needs=[Ability.CUT])
    async def test_while_it_is_not_connected_nothing_is_taken(self, stage: Stage) -> None:
        """QoS 0, words: it refuses when disconnected; a client that buffers for later would lie."""
        proxy, url = await stage.proxy()
        transport = await stage.transport(url)
        listener = await stage.member(stage.anchor, "Tick", "", durable=False)
        proxy.refuse()
        proxy.cut()

        async def refused() -> None:
            # What left before the client saw the cut may be lost, and only that.
            while isinstance(await _publish(transport, stage.out("Tick", b"gap", qos=0)), Receipt):
                await stage.pass_time(0.1)

        await stage.wait(refused())
        for _ in range(20):
            result = await _publish(transport, stage.out("Tick", b"late", qos=0))
            assert isinstance(result, Rejected)
        assert not (await stage.wait(transport.health())).ok
        proxy.heal()

        async def taken() -> None:
            while not isinstance(
                await _publish(transport, stage.out("Tick", b"back", qos=0)), Receipt
            ):
                await stage.pass_time(0.1)

        await stage.wait(taken())
        (found,) = await stage.receive(listener, 1)
        assert found.body == b"back", "what was refused is not sent later"

    @law(qos=1, needs=[Ability.CUT])
    async def test_a_lost_reply_is_unknown_and_stored_at_most_once(self, stage: Stage) -> None:
        """Words: unknown means stored zero or one time; and QoS 2, first law: a client library
        that repeats by itself would store it twice."""
        proxy, url = await stage.proxy()
        transport = await stage.transport(url)
        await stage.store(transport, stage.out("Order", b"first"))
        stored = {b"first"}
        for number in range(4):
            body = b"needle-%d" % number
            sprung = proxy.lose_reply(body)
            result = await stage.wait(_publish(transport, stage.out("Order", body)))
            assert sprung.is_set()
            assert not isinstance(result, Rejected), "it was sent: it may be stored"
            assert isinstance(result, Unknown), "who knows nothing reports nothing"
            stored.add(body)
            proxy.heal()
            marker = stage.out("Order", b"after-%d" % number)
            await stage.wait(_until_stored(stage, transport, marker))
            stored.add(marker.body)
        assert sorted(await stage.copies("Order")) == sorted(stored)


async def _restart(stage: Stage) -> None:
    assert stage.harness.restart is not None
    await stage.harness.restart()


async def _publish(transport: Transport, message: Outgoing) -> PublishResult:
    return (await transport.publish([message]))[0]


async def _until_stored(stage: Stage, transport: Transport, message: Outgoing) -> None:
    while not isinstance(result := await _publish(transport, message), Receipt):
        assert isinstance(result, Rejected), "nothing was sent while it was not connected"
        await stage.pass_time(0.1)
