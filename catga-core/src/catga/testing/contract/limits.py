"""Limits: everything is bounded by settings, and who comes to a bound is told."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from catga.errors import PayloadTooLarge
from catga.model.capability import Capability
from catga.spi import Done, EventKind, Outgoing, Receipt, Rejected, Transport
from catga.testing.contract.messages import Noted, Ordered, keep
from catga.testing.harness import Ability, law
from catga.testing.raising import raises
from catga.testing.stage import NotShown, Stage, accepted

__all__ = ["LimitsContract"]

_TOO_LONG_TO_TRY = 64 * 1024 * 1024
_MEBIBYTE = 1024 * 1024
_ROOM = 1024
"""For the headers, where those count."""


class LimitsContract:
    """Laws of sizes, windows and buffers."""

    @law(qos=1)
    async def test_a_stored_body_may_be_as_large_as_the_limit_and_not_one_byte_more(
        self, stage: Stage
    ) -> None:
        """Faults, body at the limit and one over: refused with both sizes, and nothing else."""
        await _try_limit(stage, qos=1)

    @law(qos=0)
    async def test_a_live_body_may_be_as_large_as_the_limit_and_not_one_byte_more(
        self, stage: Stage
    ) -> None:
        """Faults, body at the limit and one over: the same at QoS 0."""
        await _try_limit(stage, qos=0)

    @law(qos=1)
    async def test_a_body_of_one_mebibyte_comes_unchanged(self, stage: Stage) -> None:
        """Faults, body at the limit: what is accepted comes whole, also where no limit is set; of
        a broker that takes less, the largest that it takes, nearly."""
        transport = await stage.transport()
        size = min(_MEBIBYTE, (transport.max_payload_bytes or _MEBIBYTE + _ROOM) - _ROOM)
        body = bytes(range(256)) * (size // 256)  # cut, doubled or moved, it is another
        qualities = {Capability.AT_LEAST_ONCE: 1, Capability.AT_MOST_ONCE: 0}
        for capability in transport.capabilities.present & qualities.keys():
            qos = qualities[capability]
            group = "workers" if qos else ""
            member = await stage.member(transport, "Order", group, durable=bool(qos))
            await stage.store(transport, stage.out("Order", body, qos=qos))
            (delivery,) = await stage.receive(member, 1)
            assert bytes(delivery.body) == body, f"QoS {qos}: {len(delivery.body)} of {len(body)}"
            await stage.settle(member, delivery)

    @law(qos=1)
    async def test_one_that_is_too_large_takes_no_other_with_it(self, stage: Stage) -> None:
        """Words: the results of a batch are values, one for each; nothing of it is sent."""
        # Who reports a batch before it is published, or swallows an error, has receipts here.
        transport, limit = await _small(stage)
        before, over, after = (
            stage.out("Order", b"before"),
            stage.out("Order", b"x" * (limit + 1)),
            stage.out("Order", b"after"),
        )
        await stage.store(transport, stage.out("Order", b"first"))
        results = await stage.wait(transport.publish([before, over, after]))
        assert [type(each) for each in results] == [Receipt, Rejected, Receipt]
        bus = stage.bus(consume=False, settings={**stage.harness.small})
        async with stage.running(bus):
            with raises(PayloadTooLarge) as refused:
                await stage.wait(bus.publish(Noted("x" * limit)))
            assert refused.value.size_bytes > refused.value.limit_bytes == limit
        assert await stage.copies("Order") == [b"first", b"before", b"after"]
        assert await stage.copies("Noted") == []

    @law(qos=1, needs=[Capability.DEAD_LETTERS])
    async def test_a_dead_letter_that_is_too_large_is_parked_without_its_body(
        self, stage: Stage
    ) -> None:
        """Faults, body at the limit: a letter is larger than its original; it says what it left
        out, and stops nobody."""
        transport, limit = await _small(stage)
        bus = stage.bus(settings={**stage.harness.small})
        heard = keep(bus, Ordered)
        poison = b"\xff" * (limit * 9 // 10)
        async with stage.running(bus):
            await stage.store(transport, stage.out("Ordered", poison))
            await stage.until(lambda: bus.counts()["law/Ordered"].get("dead-letter"), 10.0)
            await bus.publish(Ordered(1))
            await stage.until(lambda: heard.calls == [(1, 1)])
            (found,) = [each async for each in bus.dead_letters.find()]
        assert found.letter is not None, found.unreadable
        assert (found.letter.body, found.letter.body_left_out) == (b"", len(poison))

    @law(qos=1)
    async def test_a_window_bounds_what_is_handed_out(self, stage: Stage) -> None:
        """QoS 1, last law: never more unsettled than the window, and what is settled makes room."""
        transport = await stage.transport()
        member = await stage.member(transport, "Order", window=5)
        await stage.store(transport, *(stage.out("Order", b"%d" % n) for n in range(30)))
        held = await stage.receive(member, 5)
        await stage.nothing(member, 0.4)
        assert await stage.wait(member.extend(held)) == [Done()] * 5
        bodies: list[bytes] = []
        while len(bodies) < 30:
            delivery, *held = held or await stage.receive(member, 1)
            bodies.append(delivery.body)
            assert await stage.settle(member, delivery) == Done()
        assert bodies == [b"%d" % n for n in range(30)]

    @law(qos=1)
    async def test_a_reader_with_a_full_window_waits_instead_of_spinning(
        self, stage: Stage
    ) -> None:
        """QoS 1, last law: `receive` returns none after its time, not before it."""
        transport = await stage.transport()
        member = await stage.member(transport, "Order", window=1, lease=stage.scaled(40.0))
        await stage.store(transport, *(stage.out("Order", b"%d" % n) for n in range(3)))
        (held,) = await stage.receive(member, 1)
        before = stage.clock.monotonic()
        reading = stage.tasks.spawn(member.receive(1, 30.0), "a reader with a full window")
        await stage.pass_time(1.0)
        assert not reading.done(), "it returned at once"
        assert await stage.settle(member, held) == Done()
        await stage.until(reading.done)
        assert [each.body for each in reading.result()] == [b"1"]
        assert stage.clock.monotonic() - before < 15.0, "the settlement woke it"

    @law(qos=1)
    async def test_a_full_publish_window_pushes_back(self, stage: Stage) -> None:
        """QoS 1, last law: at most so many under way; nothing is dropped or reported early."""
        bus = stage.bus(consume=False, settings={"publish_window": 8})
        async with stage.running(bus):
            single = asyncio.gather(*(bus.publish(Ordered(number)) for number in range(100)))
            await stage.until(single.done)
            assert len({receipt.sequence for receipt in single.result()}) == 100
            summary = await stage.wait(bus.publish_many(Ordered(number) for number in range(100)))
            assert (summary.accepted, summary.failures) == (100, ())
        assert stage.tap.peak <= 8
        assert len(await stage.copies("Ordered")) == 200

    @law(qos=0)
    async def test_a_slow_live_listener_loses_what_does_not_fit_and_says_so(
        self, stage: Stage
    ) -> None:
        """QoS 0, third law: loss that the client can see is an event; buffers are bounded."""
        bound = stage.harness.small_buffer
        if bound is None:
            raise NotShown("a small buffer (Harness.small, Harness.small_buffer)")
        receiver = await stage.transport(**stage.harness.small)
        # Both are small: who keeps the buffer, and looks at its own setting, differs.
        sender = await stage.transport(**stage.harness.small)
        listener = await stage.member(receiver, "Tick", "", durable=False)
        for start in range(0, 4 * bound, 50):
            numbers = range(start, min(start + 50, 4 * bound))
            await stage.store(sender, *(stage.out("Tick", b"%d" % n, qos=0) for n in numbers))
        await stage.until(
            lambda: any(each.kind is EventKind.SLOW_CONSUMER for each in stage.events)
        )
        # A round trip of each: everything has reached the broker, and come from there.
        assert (await sender.health()).ok
        assert (await receiver.health()).ok
        found: list[bytes] = []
        while batch := await stage.wait(listener.receive(1000, stage.scaled(0.5))):
            found += [each.body for each in batch]
        assert 0 < len(found) <= bound
        await stage.store(sender, stage.out("Tick", b"next", qos=0))
        assert [each.body for each in await stage.receive(listener, 1)] == [b"next"], "it goes on"

    @law(qos=1)
    async def test_a_slow_handler_slows_only_itself(self, stage: Stage) -> None:
        """Faults, slow consumer: what one handler cannot take waits at the broker."""
        goes_on = asyncio.Event()

        async def wait(_number: int, _attempt: int) -> None:
            await goes_on.wait()

        slow = stage.bus(group="slow", settings={"prefetch": 4, "concurrency": 2})
        quick = stage.bus(group="quick")
        begun, heard = keep(slow, Ordered, wait), keep(quick, Ordered)
        async with stage.running(slow, quick):
            summary = await stage.wait(quick.publish_many(Ordered(n) for n in range(60)))
            assert summary.accepted == 60
            await stage.until(lambda: len(heard.calls) == 60)
            await stage.until(lambda: len(begun.calls) == 2)
            goes_on.set()
            await stage.until(lambda: len(begun.calls) >= 60)
        assert begun.numbers == heard.numbers == list(range(60))

    @law(qos=1, needs=[Ability.FILL])
    async def test_a_full_broker_refuses_the_new_and_keeps_the_old(self, stage: Stage) -> None:
        """Faults, disk full: nothing accepted is lost; what does not fit is refused."""
        transport = await stage.transport(**(stage.harness.full or {}))
        stored: list[bytes] = []
        for number in range(100):
            body = b"%d:" % number + b"x" * 65_536
            message = stage.out("Order", body)
            if not stored:
                await stage.store(transport, message)
            (result,) = await stage.wait(transport.publish([message]))
            if isinstance(result, Rejected):
                break
            accepted(result)
            stored.append(body)
        else:
            raise AssertionError("it was never full")
        member = await stage.member(await stage.transport(), "Order", window=1000)
        found = {each.body for each in await stage.receive(member, len(stored))}
        assert found >= {*stored}


async def _small(stage: Stage) -> tuple[Transport, int]:
    transport = await stage.transport(**stage.harness.small)
    limit = transport.max_payload_bytes
    if limit is None:
        raise NotShown("a limit: the transport sets none")
    if limit > _TOO_LONG_TO_TRY:
        raise NotShown(f"a smaller limit than {limit} bytes (Harness.small)")
    return transport, limit


async def _try_limit(stage: Stage, qos: int) -> None:
    transport, limit = await _small(stage)
    type_, group = "Order", "workers" if qos else ""
    member = await stage.member(transport, type_, group, durable=bool(qos))
    (result,) = await transport.publish([stage.out(type_, b"x" * (limit + 1), qos=qos)])
    assert isinstance(result, Rejected)
    assert isinstance(result.error, PayloadTooLarge)
    assert result.error.limit_bytes == limit
    largest = 2 * limit + 1 - result.error.size_bytes
    assert largest > 0
    message = stage.out(type_, b"x" * largest, qos=qos)
    over: Outgoing = replace(message, body=message.body + b"x")
    (result,) = await transport.publish([over])
    assert isinstance(result, Rejected), "one byte over"
    assert isinstance(result.error, PayloadTooLarge)
    assert (result.error.size_bytes, result.error.limit_bytes) == (limit + 1, limit)
    await stage.store(transport, message)
    (delivery,) = await stage.receive(member, 1)
    assert delivery.body == message.body, "at the limit; what was over it was not stored"
    await stage.store(transport, stage.out(type_, b"next", qos=qos))
    assert [each.body for each in await stage.receive(member, 1)] == [b"next"]
