"""Dead letters as values: what is written is read back, and what comes back is the original."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catga import QualityOfService, RemoteError
from catga.codecs import read_envelope
from catga.engine.deadletters import DeadLetter, read_letter
from catga.engine.letterbox import LetterFilter
from catga.engine.replaying import FoundLetter, replayed
from catga.errors import ConfigurationError, DecodeError
from catga.spi import Kind, StoredLetter, Subject
from core.engine_kit import Asked, Probe, run

TOKENS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
TIMES = st.datetimes(
    min_value=datetime(1970, 1, 2),  # noqa: DTZ001 - the zone stands beside it
    max_value=datetime(2200, 1, 1),  # noqa: DTZ001 - the same
    timezones=st.just(UTC),
)


@st.composite
def letters(draw: st.DrawFn) -> DeadLetter:
    namespace, type_, group = (draw(TOKENS) for _ in range(3))
    kind = draw(st.sampled_from([Kind.LOG, Kind.TO, Kind.REDO]))
    return DeadLetter(
        message_id=draw(TEXTS),
        cause=draw(TEXTS),
        error=draw(TEXTS),
        traceback=draw(TEXTS),
        attempts=draw(st.integers(1, 1000)),
        parked_at=draw(TIMES),
        sequence=draw(st.from_regex(r"[0-9]{1,12}(-[0-9]{1,3})?", fullmatch=True)),
        subject=Subject(namespace, kind, type_, "" if kind is Kind.LOG else group),
        group=group,
        body=draw(st.binary(max_size=100)),
        created_at=draw(st.none() | TIMES),
        replays=draw(st.integers(0, 100)),
        headers=draw(st.none() | st.dictionaries(TEXTS, TEXTS, max_size=3)),
        body_left_out=draw(st.integers(0, 10**9)),
    )


def stored(letter: DeadLetter, **changes: Any) -> StoredLetter:
    out = letter.outgoing("test")
    return attrs.evolve(StoredLetter(out.subject, "1", out.body), **changes)


@given(letters())
def test_what_was_parked_is_read_back(letter: DeadLetter) -> None:
    assert read_letter(stored(letter)) == letter


@given(letters(), st.integers(0, 10_000), st.binary(max_size=3))
def test_a_damaged_letter_is_unreadable_or_another_one_and_nothing_else(
    letter: DeadLetter, place: int, patch: bytes
) -> None:
    whole = letter.outgoing("test").body
    place %= len(whole)
    body = whole[:place] + patch + whole[place + len(patch) :]
    found = FoundLetter.of(stored(letter, body=body))
    assert (found.letter is None) == bool(found.unreadable)


def test_words_that_are_no_text_do_not_make_it_unreadable() -> None:
    letter = some(error="ValueError: \udcff", traceback="\udcff")
    assert read_letter(stored(letter)).error == "ValueError: ?"


@given(letters())
def test_a_replay_is_for_the_failing_group_under_an_id_of_its_own(letter: DeadLetter) -> None:
    letter = attrs.evolve(letter, headers=None)
    out = replayed(letter)
    assert (out.subject.kind, out.subject.group) == (Kind.REDO, letter.group)
    assert (out.body, out.replays, out.attempts) == (letter.body, letter.replays + 1, 0)
    assert out.message_id == replayed(letter).message_id
    assert out.message_id not in {letter.message_id, letter.letter_id}
    again = attrs.evolve(letter, subject=out.subject, sequence=f"{letter.sequence}1")
    assert replayed(again).message_id != out.message_id


def some(**changes: Any) -> DeadLetter:
    given_: dict[str, Any] = {
        "message_id": "m-1",
        "cause": "poison",
        "error": "",
        "traceback": "",
        "attempts": 1,
        "parked_at": datetime(2026, 1, 1, tzinfo=UTC),
        "sequence": "1",
        "subject": Subject("catga", Kind.LOG, "Order"),
        "group": "billing",
        "body": b"{}",
    }
    return DeadLetter(**given_ | changes)


def test_an_original_whose_envelope_stood_in_headers_comes_back_whole() -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "m-1", "ce-type": "Order", "ce-source": "/s"}
    out = replayed(some(headers={**headers, "other": "x"}, body=b'{"number": 1}'))
    envelope = read_envelope(out.body)
    assert (envelope.id, envelope.type, json.loads(envelope.data)) == (
        "m-1",
        "Order",
        {"number": 1},
    )
    assert replayed(some(headers={**headers, "ce-id": ""}, body=b"x")).body == b"x"


def test_a_letter_of_another_place_is_not_believed() -> None:
    elsewhere = Subject("catga", Kind.DEAD, "Order", "shipping")
    with pytest.raises(DecodeError, match="shipping"):
        read_letter(stored(some(), subject=elsewhere))


def test_a_filter_wants_times_with_a_zone() -> None:
    with pytest.raises(ConfigurationError, match="zone"):
        LetterFilter(since=datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point


@pytest.mark.parametrize("qos", [QualityOfService.AT_LEAST_ONCE, QualityOfService.EXACTLY_ONCE])
def test_a_request_that_is_replayed_runs_though_nobody_waits_any_more(
    qos: QualityOfService,
) -> None:
    async def law(probe: Probe) -> None:
        bus, calls = probe.bus({"attempts": 1}), list[int]()

        @bus.handle(Asked)
        async def answer(asked: Asked) -> int:
            calls.append(asked.number)
            if len(calls) < 3:
                raise ValueError("not yet")
            return 7

        async with bus:
            with pytest.raises(RemoteError):
                await bus.request(Asked(1), qos=qos, timeout=5)
            await probe.pass_time(10)  # its deadline has passed
            for replays in (0, 1):
                (found,) = [found async for found in bus.dead_letters.find()]
                assert found.letter is not None
                assert (found.letter.cause, found.letter.replays) == ("attempts exhausted", replays)
                await bus.dead_letters.replay([found])
                await probe.pass_time(1)
            assert bus.counts()["tests/Asked"]["ack"] == 1
            assert [found async for found in bus.dead_letters.find()] == []
        assert calls == [1, 1, 1]

    run(law)
