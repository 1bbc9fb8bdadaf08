"""Life cycle: drain gives back, close is safe, and the end of a bus settles what is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from catga.errors import CatgaError, ConfigurationError, SubscriptionClosed
from catga.model.capability import Capability
from catga.spi import Ack, Delivery, Done, Rejected, Settle, Subscription
from catga.testing.contract.messages import Ordered, keep
from catga.testing.harness import law
from catga.testing.raising import raises
from catga.testing.stage import Stage

__all__ = ["LifeContract"]


class LifeContract:
    """Laws of opening, draining and closing."""

    @law(qos=1)
    async def test_drain_gives_back_at_once_what_was_not_handed_out(self, stage: Stage) -> None:
        """QoS 1, tenth law: drain gives back the rest at once, loses nothing."""
        lease = stage.scaled(40.0)
        bodies = [b"%d" % number for number in range(30)]
        transport = await stage.transport()
        leaving = await stage.member(transport, "Order", window=50, lease=lease)
        await stage.store(transport, *(stage.out("Order", body) for body in bodies))
        held = await stage.receive(leaving, 3)
        await stage.pass_time(0.2)  # the rest is prefetched by now
        await stage.wait(leaving.drain())
        assert await stage.wait(leaving.receive(10, 1.0)) == []
        staying = await stage.member(await stage.transport(), "Order", lease=lease)
        before = stage.clock.monotonic()
        found = await stage.receive(staying, 27)
        assert stage.clock.monotonic() - before < stage.scaled(30.0), "at once, not by the lease"
        assert sorted(each.body for each in [*held, *found]) == sorted(bodies)
        done = await stage.wait(leaving.settle([Settle(each, Ack(), True) for each in held]))
        assert done == [Done()] * 3, "what was received can still be settled"
        await stage.wait(leaving.drain())

    @law(qos=1)
    async def test_receive_wakes_on_drain_and_on_close(self, stage: Stage) -> None:
        """QoS 1, tenth law: a reader that waits is woken; nobody has to cancel it."""
        transport = await stage.transport()
        for how in ("drain", "close"):
            for durable in (True, False):
                group = "workers" if durable else ""
                member = await stage.member(transport, "Order", group, durable=durable)
                reading = stage.tasks.spawn(_read(member), "a reader")
                await stage.pass_time(0.1)
                before = stage.clock.monotonic()
                await stage.wait(getattr(member, how)())
                await stage.until(reading.done)
                assert reading.result() == []
                assert stage.clock.monotonic() - before < 15.0
                await stage.wait(member.close())

    @law()
    async def test_close_is_idempotent_and_safe_at_any_time(self, stage: Stage) -> None:
        """Words: drain and close are idempotent; close is safe before `open` and after a failure,
        and afterwards everything is refused."""
        unopened = stage.harness.make()
        await stage.wait(unopened.close())
        transport = await stage.transport()
        members = [await stage.member(transport, "Order", "", durable=False)]
        stores = Capability.AT_LEAST_ONCE in transport.capabilities
        if stores:
            members.append(await stage.member(transport, "Order"))
        for member in members:
            await stage.wait(_together(member.close(), member.close()))
            await stage.wait(member.drain())
            await stage.wait(member.close())
        await stage.wait(_together(transport.close(), transport.close()))
        await stage.wait(transport.close())
        (result,) = await transport.publish([stage.out("Order", qos=int(stores))])
        assert isinstance(result, Rejected)
        with raises(CatgaError):
            await transport.subscribe(stage.source("Order", "", durable=False))
        assert not (await transport.health()).ok

    @law(qos=1)
    async def test_close_with_unsettled_deliveries_loses_none(self, stage: Stage) -> None:
        """QoS 1, tenth law: what is unsettled comes again, at once or when its lease has ended."""
        # A member that is removed from its group with what it holds would take it along.
        transport = await stage.transport()
        leaving = await stage.member(transport, "Order")
        bodies = [b"%d" % number for number in range(20)]
        await stage.store(transport, *(stage.out("Order", body) for body in bodies))
        held = await stage.receive(leaving, 10)
        assert await stage.settle(leaving, held[0]) == Done()
        await stage.wait(leaving.close())
        await stage.wait(transport.close())
        staying = await stage.member(await stage.transport(), "Order")
        found: list[bytes] = []
        while len(found) < 19:
            (delivery,) = await stage.receive(staying, 1)
            assert await stage.settle(staying, delivery) == Done()
            found.append(delivery.body)
        assert sorted(found) == sorted({*bodies} - {held[0].body})
        await stage.nothing(staying)

    @law(qos=1)
    async def test_the_end_of_a_bus_settles_what_is_done(self, stage: Stage) -> None:
        """QoS 1, tenth law: drain finishes what is in hand, the acknowledgements too."""
        first, second = stage.bus(), stage.bus()
        heard, later = keep(first, Ordered), keep(second, Ordered)
        async with stage.running(first):
            await stage.wait(first.publish_many(Ordered(number) for number in range(20)))
            await stage.until(lambda: len(heard.calls) == 20)
        async with stage.running(second):
            await second.publish(Ordered(99))
            await stage.until(lambda: later.calls)
            await stage.pass_time(3)  # no lease is left that could end
        assert later.calls == [(99, 1)]

    @law(qos=1)
    async def test_the_end_of_a_bus_gives_back_what_it_did_not_begin(self, stage: Stage) -> None:
        """QoS 1, tenth law: finishes what is in hand, gives back the rest, loses nothing."""
        started, goes_on = asyncio.Event(), asyncio.Event()

        async def wait(_number: int, _attempt: int) -> None:
            started.set()
            await goes_on.wait()

        first = stage.bus(settings={"concurrency": 1, "lease": stage.scaled(40.0)})
        second = stage.bus(settings={"lease": stage.scaled(40.0)})
        begun, rest = keep(first, Ordered, wait), keep(second, Ordered)
        async with stage.running(first):
            await stage.wait(first.publish_many(Ordered(number) for number in range(20)))
            await stage.until(started.is_set)
            draining = asyncio.create_task(first.drain())
            await stage.pass_time(0.1)
            goes_on.set()
            await stage.until(draining.done)
            assert draining.result().abandoned == 0
        async with stage.running(second):
            await stage.until(lambda: len(begun.calls) + len(rest.calls) >= 20, 15.0)
        assert sorted(begun.numbers + rest.numbers) == list(range(20)), "each once"

    @law()
    async def test_a_bus_is_used_once(self, stage: Stage) -> None:
        """Words: entering twice is refused, and so is publishing outside of `async with`."""
        bus = stage.bus(consume=False)
        with raises(ConfigurationError):
            await bus.publish(Ordered(1))
        async with stage.running(bus):
            assert (await bus.health()).ok
        for wrong in (bus.__aenter__, lambda: bus.publish(Ordered(1))):
            with raises(ConfigurationError):
                await wrong()
        await bus.close()


async def _read(member: Subscription) -> list[Delivery]:
    try:
        return await member.receive(1, 60.0)
    except SubscriptionClosed:
        return []


async def _together(*work: Awaitable[object]) -> None:
    await asyncio.gather(*work)
