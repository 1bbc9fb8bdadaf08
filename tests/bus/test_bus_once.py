"""Exactly once, over every transport: stored once, handled once."""

from __future__ import annotations

import asyncio

import pytest

from bus.bus_kit import Once, Order, Place, eventually, keep, run, settled
from catga import Context, QualityOfService
from catga.errors import CapabilityError
from catga.spi import Capability, Kind


def test_published_twice_it_is_stored_once_and_handled_once(place: Place) -> None:
    async def law() -> None:
        bus, other = place.bus(), place.bus(group="other")
        got = [keep(bus, Once), keep(other, Once)]
        async with place.outside() as outside, bus, other:
            message = Once(1)
            receipts = [await bus.publish(message) for _ in range(2)]
            async with place.bus(consume=False) as another:
                receipts.append(await another.publish(Once(2), message_id=message.message_id))
            assert [receipt.duplicate for receipt in receipts] == [False, True, True]
            assert {receipt.message_id for receipt in receipts} == {message.message_id}
            assert len({receipt.sequence for receipt in receipts}) == 1
            await settled(outside, "Once", "tests", "other")
            assert len(await outside.stored(outside.subject(Kind.LOG, "Once"))) == 1
        assert got == [[1], [1]]

    run(law)


def test_side_by_side_too(place: Place) -> None:
    async def law() -> None:
        bus = place.bus()
        numbers = keep(bus, Once)
        async with place.outside() as outside, bus, place.bus(consume=False) as another:
            messages = [Once(number) for number in range(20)]
            receipts = await asyncio.gather(
                *(each.publish(message) for message in messages for each in (bus, another))
            )
            assert sum(receipt.duplicate for receipt in receipts) == 20
            summary = await bus.publish_many([*messages, *messages, Once(20)])
            assert (summary.accepted, summary.duplicates) == (41, 40)
            await settled(outside, "Once", "tests")
        assert sorted(numbers) == list(range(21))

    run(law)


def test_one_id_to_several_destinations_is_several_messages(place: Place) -> None:
    async def law() -> None:
        near, far = place.bus(group="near"), place.bus(group="far")
        got = [keep(near, Once), keep(far, Once)]
        async with place.outside() as outside, near, far:
            message = Once(1)
            for to in ("near", "far", "near"):
                receipt = await far.send(message, to=to)
            assert receipt.duplicate
            await settled(outside, "Once", "near", "far")
        assert got == [[1], [1]]

    run(law)


def test_a_second_stored_copy_of_what_was_completed_is_not_handled(place: Place) -> None:
    """The group's own memory: this copy the broker did not recognise."""

    async def law() -> None:
        bus, late = place.bus(), place.bus()
        numbers, again = keep(bus, Once), keep(late, Once)
        async with place.outside() as outside:
            subject = outside.subject(Kind.LOG, "Once")
            async with bus:
                await bus.publish(Once(1))
                await settled(outside, "Once", "tests")
                (body,) = await outside.stored(subject)
                await outside.store(subject, body)
                await settled(outside, "Once", "tests")
            async with late:  # another process of the group remembers as well
                await outside.store(subject, body)
                await settled(outside, "Once", "tests")
            assert len(await outside.stored(subject)) == 3
        assert (numbers, again) == ([1], [])

    run(law)


def test_copies_that_come_together_are_handled_once_by_one_member(place: Place) -> None:
    async def law() -> None:
        bus = place.bus()
        numbers = keep(bus, Once)
        async with place.outside() as outside:
            async with place.bus(consume=False) as publisher:
                await publisher.publish(Once(1))
            subject = outside.subject(Kind.LOG, "Once")
            (body,) = await outside.stored(subject)
            for _ in range(5):
                await outside.store(subject, body)
            async with bus:
                await settled(outside, "Once", "tests")
        assert numbers == [1]

    run(law)


def test_a_failed_attempt_is_not_a_completion(place: Place) -> None:
    async def law() -> None:
        attempts: list[int] = []
        bus = place.bus()

        @bus.handle(Once)
        async def handle(message: Once, context: Context) -> None:
            attempts.append(context.attempt)
            assert context.qos is QualityOfService.EXACTLY_ONCE
            if context.attempt < 3:
                raise ConnectionError

        async with place.outside() as outside, bus:
            await bus.publish(Once(1))
            await settled(outside, "Once", "tests")
            assert await outside.dead("Once") == []
        assert attempts == [1, 2, 3]

    run(law)


@pytest.mark.parametrize("repeats", [1, 2])
def test_a_message_may_be_sent_at_more_than_its_type_asks(place: Place, repeats: int) -> None:
    async def law() -> None:
        bus = place.bus()
        numbers = keep(bus, Order)
        async with place.outside() as outside, bus:
            message = Order(1)
            for _ in range(repeats):
                await bus.publish(message, qos=QualityOfService.EXACTLY_ONCE)
            await eventually(lambda: numbers)
            await settled(outside, "Order", "tests")
        assert numbers == [1]

    run(law)


def test_the_mode_is_shown_with_its_windows(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def law() -> None:
        caplog.set_level("INFO", "catga")
        shorter = {"completion_ttl": "12h", "retention": "12h"}
        bus, other = place.bus(), place.bus(settings=shorter, publishes=[Once])
        plain = place.bus()
        keep(bus, Once)
        keep(plain, Order)
        assert "exactly once" not in repr(bus), "not known before the server is"
        async with bus, other, plain:
            mode = "atomic" if Capability.ATOMIC in bus.transport.capabilities else "windowed"
            promise = f"exactly once [{mode}: {place.kind}] W=10 min D=24 h"
            assert promise in repr(bus)
            assert promise in caplog.text
            assert "D=12 h" in repr(other)
            assert "exactly once" not in repr(plain)

    run(law)


def test_where_exactly_once_cannot_be_kept_a_message_that_asks_for_it_is_parked(
    place: Place,
) -> None:
    """The group had started with less; it neither runs what it could repeat, nor goes round."""

    async def law() -> None:
        short = {"completion_ttl": 1.0}  # seconds: shorter than a message can come again
        bus, sender = place.bus(settings=short), place.bus(consume=False)
        numbers = keep(bus, Order)
        async with bus, sender:
            await sender.publish(Order(1))
            await sender.publish(Order(2), qos=QualityOfService.EXACTLY_ONCE)
            await eventually(lambda: bus.counts()["tests/Order"].get("dead-letter"))
            await eventually(lambda: bus.counts()["tests/Order"].get("ack"))
            (found,) = [each async for each in sender.dead_letters.find()]
            letter = found.letter
            assert letter is not None
            assert letter.cause == "exactly once cannot be kept here"
            assert "completion_ttl" in letter.error
            with pytest.raises(CapabilityError, match="completion_ttl"):
                await bus.publish(Order(3), qos=QualityOfService.EXACTLY_ONCE)
        assert numbers == [1]

    run(law)
