"""Names, headers and bodies that cannot travel: refused before anything is sent."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import attrs
import pytest

from bus.bus_kit import Asked, Fast, Once, Order, Place, Text, eventually, keep, run
from catga import (
    Bus,
    CatgaError,
    ConfigurationError,
    Event,
    PayloadTooLarge,
    PublishRejected,
    QualityOfService,
    RemoteError,
    Request,
)
from catga.spi import Kind

Calls = Sequence[Callable[[Bus], Awaitable[Any]]]

BAD_WORDS = (
    "a b",
    "a*",
    ">",
    "a?[b]",
    "a\r\nPUB b 1",
    "a\n",
    "a\0b",
    "a.b",
    "a}{b",
    "a:b",
    "grün",
    "",
    "a" * 65,
)
LONGEST = "Z" * 64


def refused(place: Place, kind: type[CatgaError], all_calls: Iterable[Calls]) -> None:
    """Each call is refused; the broker hears and keeps nothing; the bus goes on."""

    async def law() -> None:
        bus = place.bus()
        numbers = keep(bus, Fast)
        async with place.outside() as outside, bus, outside.listening() as heard:
            for call in itertools.chain.from_iterable(all_calls):
                with pytest.raises(kind):
                    await call(bus)
            await bus.publish(Fast(7))
            await eventually(lambda: heard and numbers)
            assert [subject for subject, _ in heard] == [f"{place.namespace}.live.Fast"]
            assert await outside.everything() == []

    run(law)


def test_bad_wire_names_are_refused(place: Place) -> None:
    def calls(word: str) -> Calls:
        @attrs.frozen
        class Named(Event):
            wire_name = word
            number: int

        return (
            lambda bus: bus.publish(Named(1)),
            lambda bus: bus.publish(Named(1), qos=QualityOfService.AT_MOST_ONCE),
            lambda bus: bus.send(Named(1), to="tests"),
            lambda bus: _enter(place.bus(publishes=[Named])),
            lambda bus: _enter(_handling(place.bus(), Named)),
        )

    refused(place, ConfigurationError, map(calls, BAD_WORDS))


async def _enter(bus: Bus) -> None:
    async with bus:
        pass


def _handling(bus: Bus, cls: type) -> Bus:
    keep(bus, cls)
    return bus


def test_bad_destinations_are_refused(place: Place) -> None:
    def calls(word: str) -> Calls:
        return (
            lambda bus: bus.send(Order(1), to=word),
            lambda bus: bus.send(Once(1), to=word),
            lambda bus: bus.send(Fast(1), to=word),
            lambda bus: bus.request(Asked(1), to=word),
            lambda bus: bus.request(Asked(1), to=word, qos=QualityOfService.AT_MOST_ONCE),
        )

    refused(place, ConfigurationError, map(calls, BAD_WORDS))


@pytest.mark.parametrize("word", BAD_WORDS, ids=ascii)
def test_a_bad_service_group_or_namespace_is_refused_before_there_is_a_bus(word: str) -> None:
    with pytest.raises(ConfigurationError, match="service"):
        Bus("inmemory://", service=word)
    with pytest.raises(ConfigurationError, match="group"):
        Bus("inmemory://", service="tests", group=word)
    with pytest.raises(ConfigurationError, match="namespace"):
        Bus("inmemory://", service="tests", namespace=word)
    with pytest.raises(ConfigurationError, match="group"):
        keep(Bus("inmemory://", service="tests"), Order, group=word)


BAD_HEADERS: tuple[dict[str, str], ...] = (
    {"a b": "x"},
    {"a*": "x"},
    {"": "x"},
    {"Upper": "x"},
    {"a" * 21: "x"},
    {"Status": "503"},
    {"id": "another"},
    {"replyto": "x"},
    {"colour": "red\r\nNats-Rollup: all"},
    {"colour": "red\nblue"},
    {"colour": "\0"},
    {"colour": "x" * 4097},
    {"colour": "\ud800"},
    {f"h{number}": "x" * 4096 for number in range(9)},
)


def test_bad_headers_are_refused(place: Place) -> None:
    def calls(headers: dict[str, str]) -> Calls:
        return (
            lambda bus: bus.publish(Order(1), headers=headers),
            lambda bus: bus.publish(Fast(1), headers=headers),
            lambda bus: bus.send(Once(1), to="tests", headers=headers),
            lambda bus: bus.request(Asked(1), headers=headers),
        )

    refused(place, ConfigurationError, map(calls, BAD_HEADERS))


def test_bad_message_ids_are_refused(place: Place) -> None:
    known = Order(2)
    assert known.message_id

    def calls(message_id: str) -> Calls:
        return (
            lambda bus: bus.publish(Order(1), message_id=message_id),
            lambda bus: bus.publish(known, message_id=message_id),
            lambda bus: bus.publish(Fast(1), message_id=message_id),
            lambda bus: bus.request(Asked(1), message_id=message_id),
        )

    refused(place, ConfigurationError, map(calls, ("", "a b", "a\r\nb", "ü", "x" * 129, "\0")))


def test_the_longest_words_that_are_allowed_work(place: Place) -> None:
    @attrs.frozen
    class Longest(Event):
        wire_name = LONGEST
        qos = QualityOfService.EXACTLY_ONCE
        number: int

    headers = {"h" * 20: "x" * 4096, **{f"h{number}": "ü" * 2000 for number in range(6)}}
    seen: list[dict[str, str]] = []

    async def law() -> None:
        bus = place.bus(group=LONGEST, namespace="Y" * 48 + place.namespace[-16:])

        @bus.handle(Longest)
        async def handle(message: Longest, context: Any) -> None:
            seen.append(dict(context.headers))
            assert context.message_id == "~" * 128

        async with bus:
            await bus.send(Longest(1), to=LONGEST, message_id="~" * 128, headers=headers)
            await eventually(lambda: seen)

    run(law)
    assert seen == [headers]


# ---- size


LIMIT = 64 * 1024


@pytest.fixture
def narrow(brokered: Place) -> Any:
    """A place that takes 64 KiB: NATS by the server's configuration, Redis by our setting."""
    if brokered.kind == "redis":
        yield brokered
        return
    with brokered.flavour.server(config=f"max_payload: {LIMIT}") as server:
        yield attrs.evolve(brokered, server=server)


def narrow_bus(place: Place, **more: Any) -> Bus:
    own = {"max_payload_bytes": LIMIT} if place.kind == "redis" else {}
    return place.bus(settings={**own, "attempts": 1}, **more)


async def excess(bus: Bus, length: int, qos: QualityOfService) -> int:
    """By how many bytes a text of this length is too long."""
    with pytest.raises(PayloadTooLarge) as caught:
        await bus.publish(Text("x" * length), qos=qos)
    error = caught.value
    assert isinstance(error, PublishRejected)
    assert error.limit_bytes == LIMIT
    assert error.size_bytes > length
    assert str(error.size_bytes) in str(error)
    assert str(LIMIT) in str(error)
    return error.size_bytes - LIMIT


@pytest.mark.parametrize("qos", list(QualityOfService))
def test_what_is_too_large_is_refused_and_what_just_fits_travels(
    narrow: Place, qos: QualityOfService
) -> None:
    async def law() -> None:
        bus = narrow_bus(narrow)
        lengths: list[int] = []

        @bus.handle(Text)
        async def handle(message: Text) -> None:
            lengths.append(len(message.text))

        async with narrow.outside() as outside, bus, outside.listening() as heard:
            fits = LIMIT - await excess(bus, LIMIT, qos)
            assert await excess(bus, fits + 1, qos) == 1
            assert await excess(bus, 8 * LIMIT, qos) == 7 * LIMIT + LIMIT - fits
            await bus.publish(Fast(1))
            await eventually(lambda: heard)
            assert [subject for subject, _ in heard] == [f"{narrow.namespace}.live.Fast"]
            assert await outside.everything() == []
            await bus.publish(Text("x" * fits), qos=qos)
            await eventually(lambda: lengths == [fits])
            assert (await bus.health()).ok

    run(law)


def test_in_bulk_only_what_is_too_large_fails(narrow: Place) -> None:
    async def law() -> None:
        texts: list[int] = []
        bus = narrow_bus(narrow)

        @bus.handle(Text)
        async def handle(message: Text) -> None:
            texts.append(len(message.text))

        async with bus:
            sizes = [10, LIMIT, 20, 2 * LIMIT, 30]
            summary = await bus.publish_many(Text("x" * size) for size in sizes)
            assert summary.accepted == 3
            assert [position for position, _ in summary.failures] == [1, 3]
            assert all(isinstance(error, PayloadTooLarge) for _, error in summary.failures)
            await eventually(lambda: sorted(texts) == [10, 20, 30])

    run(law)


def test_the_dead_letter_of_what_just_fitted_is_kept_without_its_body(narrow: Place) -> None:
    async def law() -> None:
        bus = narrow_bus(narrow)

        @bus.handle(Text)
        async def handle(message: Text) -> None:
            raise ValueError("no")

        async with narrow.outside() as outside, bus:
            await bus.publish(Text("x" * (LIMIT - 1000)))
            await eventually(lambda: bus.counts()["tests/Text"].get("dead-letter") == 1)
            (letter,) = await outside.dead("Text")
            (stored,) = await outside.stored(outside.subject(Kind.LOG, "Text"))
        assert letter["error"] == "ValueError: no"
        assert letter["body"] == b""
        assert letter["body_left_out_bytes"] == len(stored)

    run(law)


def test_a_response_that_is_too_large_is_told_to_who_asked(narrow: Place) -> None:
    @attrs.frozen
    class Spell(Request[str]):
        length: int

    async def law() -> None:
        bus = narrow_bus(narrow)

        @bus.handle(Spell)
        async def answer(request: Spell) -> str:
            return "x" * request.length

        async with bus:
            assert await bus.request(Spell(3)) == "xxx"
            with pytest.raises(RemoteError, match="PayloadTooLarge"):
                await bus.request(Spell(LIMIT), timeout=3)

    run(law)
