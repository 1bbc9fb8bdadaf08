"""Faults between a client and its broker: what was accepted stays, and nothing comes twice."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import datetime, timedelta

from catga.bus import Bus
from catga.ground.clock import Clock, Timer
from catga.spi import Ack, Done, Settle, Unknown
from catga.testing.contract.messages import Charged, keep
from catga.testing.harness import Ability, law
from catga.testing.stage import Stage

__all__ = ["FaultsContract"]

_BODIES = [b"%d" % number for number in range(20)]


class _Jumping(Clock):
    """The stage's time with a wall clock that somebody sets."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.ahead = timedelta(0)

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def now(self) -> datetime:
        return self._clock.now() + self.ahead

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        return self._clock.call_later(delay, callback)


class FaultsContract:
    """Laws of connections that break and of brokers that end."""

    @law(qos=1, needs=[Ability.RESTART])
    async def test_what_was_accepted_survives_a_restart_of_the_broker(self, stage: Stage) -> None:
        """Faults, SIGKILL and restart on its data: none lost; what was settled may come again."""
        transport = await stage.transport()
        member = await stage.member(transport, "Order")
        await stage.store(transport, *(stage.out("Order", body) for body in _BODIES))
        held = await stage.receive(member, 5)
        done = await stage.wait(member.settle([Settle(each, Ack(), confirm=True) for each in held]))
        assert done == [Done()] * 5
        await transport.close()
        assert stage.harness.restart is not None
        await stage.harness.restart()
        back = await stage.member(await stage.transport(), "Order")
        # JetStream writes the places of its groups later than it confirms them.
        left = {*_BODIES[5:]}
        while left:
            (delivery,) = await stage.receive(back, 1)
            left.discard(delivery.body)

    @law(qos=2, needs=[Ability.CUT])
    async def test_a_publish_that_is_cut_anywhere_is_stored_once(self, stage: Stage) -> None:
        """QoS 2, first law: over lost replies; cut at the k-th write, before or after the broker
        was given it."""
        proxy, url = await stage.proxy()
        bus = stage.bus(url=url, consume=False, publishes=[Charged])
        published = itertools.count()
        async with stage.running(bus):
            for k in (1, 2, 3):
                for when in ("before", "after"):
                    sprung = proxy.cut_at_write(k, "after" if when == "after" else "before")
                    while not sprung.is_set():  # one publish may take fewer writes
                        await stage.wait(bus.publish(Charged(next(published))))
        assert len(await stage.copies("Charged")) == next(published)

    @law(qos=2, needs=[Ability.CUT])
    async def test_an_acknowledgement_that_never_arrives_is_not_told_as_done(
        self, stage: Stage
    ) -> None:
        """QoS 2, third law: a confirmed acknowledgement waits for the broker's word: one that is
        swallowed on its way is unknown, and the message comes again."""
        proxy, url = await stage.proxy()
        member = await stage.member(await stage.transport(url), "Order")
        await stage.store(stage.anchor, stage.out("Order"))
        (delivery,) = await stage.receive(member, 1)
        proxy.black_hole(down=False)
        acknowledge = member.settle([Settle(delivery, Ack(), confirm=True)])
        settling = stage.tasks.spawn(acknowledge, "an acknowledgement that is swallowed")
        await stage.until(lambda: settling.done() or proxy.counts.dropped_bytes)
        await stage.pass_time(0.2)
        proxy.refuse()  # or it could be said once more, and heard
        proxy.cut()
        await stage.until(settling.done)
        (result,) = settling.result()
        assert isinstance(result, Unknown), result
        other = await stage.member(await stage.transport(), "Order")
        (again,) = await stage.receive(other, 1)
        assert again.attempt == 2

    @law(qos=2, needs=[Ability.CUT])
    async def test_a_lost_receipt_is_asked_for_again_and_says_duplicate(self, stage: Stage) -> None:
        """QoS 2, first law: over a lost reply: the bus repeats by itself what is unknown, and the
        receipt of the repeat tells that the first try had been stored."""
        proxy, url = await stage.proxy()
        bus = stage.bus(url=url, consume=False, publishes=[Charged])
        async with stage.running(bus):
            assert not (await stage.wait(bus.publish(Charged(1)))).duplicate
            lost = proxy.lose_reply(b'"number":77')
            receipt = await stage.wait(bus.publish(Charged(77)))
            assert lost.is_set()
            assert receipt.duplicate
        assert len(await stage.copies("Charged")) == 2

    @law(qos=2, needs=[Ability.CUT])
    async def test_the_repeat_of_a_publish_that_was_given_up_says_duplicate(
        self, stage: Stage
    ) -> None:
        """QoS 2, first law: over timeouts and cancelled publishes: whoever waited in vain for the
        receipt, gave up, and publishes the same message again adds nothing."""
        proxy, url = await stage.proxy()
        bus = stage.bus(url=url, consume=False, publishes=[Charged])
        message = Charged(1)
        async with stage.running(bus):
            assert not (await stage.wait(bus.publish(Charged(0)))).duplicate
            proxy.black_hole(up=False)
            waiting = asyncio.create_task(bus.publish(message))
            while len(await stage.copies("Charged")) < 2:
                await stage.pass_time(0.1)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled(), "nobody could have told it"
            proxy.heal()
            proxy.cut()
            assert (await stage.wait(bus.publish(message))).duplicate
        assert len(await stage.copies("Charged")) == 2

    @law(qos=0, needs=[Ability.CUT])
    async def test_what_was_sent_on_a_broken_connection_is_not_sent_again(
        self, stage: Stage
    ) -> None:
        """QoS 0, first law: never twice, whatever fails; a client that repeats by itself would."""
        listener = await stage.member(stage.anchor, "Tick", "", durable=False)
        proxy, url = await stage.proxy()
        sender = await stage.transport(url)
        lost = proxy.lose_reply(b"once")
        await stage.store(sender, stage.out("Tick", b"once", qos=0))
        await stage.until(lost.is_set)
        found: list[bytes] = []

        async def until_it_goes_on() -> None:
            # What is handed over before the client has seen the cut may be lost, and only that.
            for number in itertools.count():
                await sender.publish([stage.out("Tick", b"after-%d" % number, qos=0)])
                found.extend(each.body for each in await listener.receive(10, 0.2))
                if any(body.startswith(b"after") for body in found):
                    return

        await stage.wait(until_it_goes_on())
        while more := await stage.wait(listener.receive(10, stage.scaled(0.5))):
            found += [each.body for each in more]
        assert b"once" in found
        assert sorted(found) == sorted(set(found)), "something came twice"

    @law(qos=2)
    async def test_a_wall_clock_that_is_set_ends_no_lease_and_forgets_no_id(
        self, stage: Stage
    ) -> None:
        """Faults, clock jump: leases, retries and windows go by clocks that nobody sets; what the
        wall clock says is only written down."""
        clock = _Jumping(stage.clock)
        bus, other = stage.bus(clock=clock), stage.bus()
        goes_on = asyncio.Event()

        async def wait(_number: int, attempt: int) -> None:
            await goes_on.wait()
            if attempt == 1:
                raise ValueError("once more")

        heard, elsewhere = keep(bus, Charged, wait), keep(other, Charged)
        async with stage.running(bus):
            await stage.wait(bus.publish(Charged(1), message_id="m-1"))
            await stage.until(lambda: heard.calls)
            async with stage.running(other):
                for days in (1, -1):
                    clock.ahead = timedelta(days=days)
                    await stage.pass_time(5)  # two leases and a half
                    receipt = await stage.wait(bus.publish(Charged(1), message_id="m-1"))
                    assert receipt.duplicate
                assert (heard.calls, elsewhere.calls) == ([(1, 1)], [])
                goes_on.set()
                await stage.until(lambda: _acks(bus, other) == 1)
        assert sorted(heard.calls + elsewhere.calls) == [(1, 1), (1, 2)]


def _acks(*buses: Bus) -> int:
    return sum(bus.counts()["law/Charged"].get("ack", 0) for bus in buses)
