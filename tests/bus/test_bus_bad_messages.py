"""Messages from outside that nobody can read: parked or counted, never in anyone's way."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bus.bus_kit import Asked, Fast, Once, Order, Place, eventually, keep, run, settled
from bus.outside_kit import RedisOutside
from catga import DecodeError
from catga.spi import Kind


def event(type_: str, data: Any, **more: Any) -> bytes:
    attributes = {"specversion": "1.0", "id": "from-outside", "source": "elsewhere", "type": type_}
    return json.dumps({**attributes, "data": data, **more}).encode()


BAD = {
    "no body": lambda type_: b"",
    "not JSON": lambda type_: b"\xff\x00{{",
    "JSON of something else": lambda type_: b'["no", "envelope"]',
    "too deep": lambda type_: b"[" * 100_000,
    "unknown wire type": lambda type_: event("Nobody", {"number": 1}),
    "wrong field type": lambda type_: event(type_, {"number": "seven"}),
    "a field missing": lambda type_: event(type_, {}),
    "no data": lambda type_: event(type_, None),
    "another version": lambda type_: event(type_, {"number": 1}, typeversion=99),
    "an id with a space": lambda type_: event(type_, {"number": 1}, id="a b"),
    "text that is no text": lambda type_: event(type_, {"number": 1})[:-2] + b'\xc3\x28"}',
}
bad = pytest.mark.parametrize("make", BAD.values(), ids=BAD)


@bad
@pytest.mark.parametrize("cls", [Order, Once])
def test_it_is_parked_with_its_cause_and_bytes_and_the_rest_is_handled(
    place: Place, cls: type, make: Any
) -> None:
    type_ = cls.__name__
    body = make(type_)

    async def law() -> None:
        bus = place.bus()
        numbers = keep(bus, cls)
        async with place.outside() as outside, bus:
            await bus.publish(cls(1))
            await outside.store(outside.subject(Kind.LOG, type_), body)
            await outside.store(outside.subject(Kind.TO, type_, "tests"), body)
            await bus.publish(cls(2))
            await settled(outside, type_, "tests")
            letters = await outside.dead(type_)
            counts = bus.counts()[f"tests/{type_}"]
            assert (await bus.health()).ok
        assert sorted(numbers) == [1, 2]
        assert [letter["body"] for letter in letters] == [body, body]
        assert {letter["cause"] for letter in letters} == {"poison"}
        assert {letter["attempts"] for letter in letters} == {1}
        assert all("Error: " in letter["error"] for letter in letters)
        assert {letter["subject"] for letter in letters} == {
            f"{place.namespace}.log.{type_}.0",
            f"{place.namespace}.to.tests.{type_}",
        }
        assert {word: counts[word] for word in ("poison", "dead-letter", "handled")} == {
            "poison": 2,
            "dead-letter": 2,
            "handled": 2,
        }

    run(law)


@bad
def test_at_qos_0_it_is_counted_and_the_rest_is_handled(place: Place, make: Any) -> None:
    async def law() -> None:
        bus = place.bus()
        numbers = keep(bus, Fast)
        async with place.outside() as outside, bus:
            await bus.publish(Fast(1))
            await eventually(lambda: numbers == [1])
            await outside.send(outside.subject(Kind.LIVE, "Fast"), make("Fast"))
            await eventually(lambda: bus.counts()["tests/Fast"].get("poison") == 1)
            await bus.publish(Fast(2))
            await eventually(lambda: numbers == [1, 2])
            assert await outside.everything() == []

    run(law)


@pytest.mark.parametrize(
    "fields",
    [{b"note": b"hello"}, {b"note": b"\xff", b"b": b"{"}, {b"\xfe": b"", b"": b"x"}],
    ids=["without our field", "with more fields", "of bytes that are no text"],
)
def test_a_stream_entry_of_other_fields_is_parked(redis: Place, fields: dict[bytes, bytes]) -> None:
    async def law() -> None:
        bus = redis.bus()
        numbers = keep(bus, Order)
        async with redis.outside() as outside, bus:
            assert isinstance(outside, RedisOutside)
            await outside.add(outside.subject(Kind.LOG, "Order"), fields)
            await bus.publish(Order(1))
            await settled(outside, "Order", "tests")
            (letter,) = await outside.dead("Order")
        assert numbers == [1]
        assert (letter["cause"], letter["body"]) == ("poison", fields.get(b"b", b""))

    run(law)


@pytest.mark.parametrize("name", ["ce-specversion", "ce-id", "Status", "Nats-Foo"])
def test_headers_from_outside_harm_nobody(nats: Place, name: str) -> None:
    async def law() -> None:
        bus = nats.bus()
        numbers = keep(bus, Order)
        async with nats.outside() as outside, bus:
            await outside.store(outside.subject(Kind.LOG, "Order"), b"{", **{name: "1.0"})
            await bus.publish(Order(1))
            await settled(outside, "Order", "tests")
            (letter,) = await outside.dead("Order")
        assert numbers == [1]
        assert (letter["cause"], letter["body"]) == ("poison", b"{")

    run(law)


def test_poison_in_plenty_slows_nobody_down(place: Place) -> None:
    async def law() -> None:
        bus = place.bus(settings={"prefetch": 10, "concurrency": 2})
        numbers = keep(bus, Order)
        async with place.outside() as outside, bus:
            subject = outside.subject(Kind.LOG, "Order")
            for number in range(200):
                await outside.store(subject, b"%d" % number)
            await bus.publish(Order(1))
            await settled(outside, "Order", "tests")
            assert len(await outside.dead("Order")) == 200
        assert numbers == [1]

    run(law)


def test_a_response_nobody_can_read_fails_its_request_only(place: Place) -> None:
    async def law() -> None:
        asker, answerer = place.bus(), place.bus(group="answerer")

        @answerer.handle(Asked)
        async def answer(request: Asked) -> int:
            return request.number

        async with place.outside() as outside, asker, answerer, outside.listening() as heard:
            assert await asker.request(Asked(1), to="answerer") == 1
            await eventually(lambda: any(".reply." in subject for subject, _ in heard))
            seen = next(subject for subject, _ in heard if ".reply." in subject)
            namespace, _, instance, token = seen.split(".")
            assert namespace == place.namespace
            asking = asyncio.create_task(asker.request(Asked(2), to="nobody-yet"))
            await outside.send(outside.subject(Kind.REPLY, token, instance), b"late: ignored")
            await eventually(lambda: len(asker._session.requester._waiting) == 1)  # type: ignore[union-attr]
            subject = outside.subject(Kind.REPLY, str(int(token) + 1), instance)
            await outside.send(subject, b"\xff no response")
            with pytest.raises(DecodeError):
                await asking
            assert await asker.request(Asked(3), to="answerer") == 3

    run(law)
