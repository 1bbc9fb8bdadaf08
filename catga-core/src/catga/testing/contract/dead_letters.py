"""Dead letters: everything that is known is kept, shown page by page, and removed one by one."""

from __future__ import annotations

import json
from typing import Any

from catga.engine.replaying import Fate
from catga.errors import CapabilityError
from catga.model.capability import Capability
from catga.spi import Done, Kind, Lost, StoredLetter, Subject
from catga.testing.contract.letters import (
    LETTERS,
    ONCE,
    dead,
    fail,
    letter_in,
    letters_of,
    parked,
    store_of,
)
from catga.testing.contract.messages import Ordered, keep
from catga.testing.harness import law
from catga.testing.raising import raises
from catga.testing.stage import Stage

__all__ = ["DeadLettersContract"]


class DeadLettersContract:
    """Laws of what a group gave up on."""

    @law(qos=1)
    async def test_dead_letters_can_be_looked_at_or_it_is_refused(self, stage: Stage) -> None:
        """Dead letters: a transport that cannot show them says so; an empty list would be a lie."""
        bus = stage.bus(consume=False)
        async with stage.running(bus):
            if Capability.DEAD_LETTERS in stage.anchor.capabilities:
                assert await stage.wait(letters_of(bus)) == []
                assert await stage.wait(bus.dead_letters.counts()) == {}
                return
            assert stage.anchor.dead_letters is None
            with raises(CapabilityError, naming=Capability.DEAD_LETTERS.value):
                _ = bus.dead_letters

    @law(qos=1, needs=LETTERS)
    async def test_a_dead_letter_keeps_all_that_is_known(self, stage: Stage) -> None:
        """QoS 1, seventh law: with cause, traceback, attempts, times, place, bytes, group."""
        bus = stage.bus(settings={"attempts": 2}, group="law")
        heard = keep(bus, Ordered, fail)
        began = stage.clock.now()
        async with stage.running(bus):
            message = Ordered(1)
            receipt = await bus.publish(message)
            (found,) = await parked(stage, bus, 1)
            (original,) = stage.tap.stored(Kind.LOG)
        letter = letter_in(found)
        assert heard.calls == [(1, 1), (1, 2)]
        assert (letter.message_id, letter.group) == (message.message_id, "law")
        assert (letter.cause, letter.error) == ("attempts exhausted", "ValueError: number 1 fails")
        assert "Traceback (most recent call last)" in letter.traceback
        assert "in fail" in letter.traceback
        assert (letter.attempts, letter.replays, letter.body_left_out) == (2, 0, 0)
        assert (letter.subject, letter.body) == (original.subject, original.body)
        assert letter.sequence == receipt.sequence
        assert letter.created_at == message.created_at
        assert began <= letter.parked_at <= stage.clock.now()
        assert found.stored.subject == Subject(stage.namespace, Kind.DEAD, "Ordered", "law")

    @law(qos=1, needs=LETTERS)
    async def test_a_dead_letter_is_there_before_its_original_is_settled(
        self, stage: Stage
    ) -> None:
        """QoS 1, seventh law: parked, then settled: whoever knows that it is settled finds it."""
        bus = stage.bus(settings=ONCE)
        keep(bus, Ordered, fail)
        async with stage.running(bus):
            for number in range(5):
                await bus.publish(Ordered(number))
                settled = number + 1
                await stage.until(
                    lambda: bus.counts()["law/Ordered"].get("dead-letter", 0) >= settled  # noqa: B023 - awaited here
                )
                assert len(await stage.wait(letters_of(bus))) >= settled

    @law(qos=1, needs=LETTERS)
    async def test_letters_are_read_in_their_order_page_by_page(self, stage: Stage) -> None:
        """Dead letters: each page begins behind the last one; nothing is missed or comes twice."""
        transport = await stage.transport()
        for group in ("one", "two"):
            await _lay(stage, group, *range(7))
        store = store_of(stage)
        counts = await stage.wait(store.subjects(stage.namespace))
        subjects = [Subject(stage.namespace, Kind.DEAD, "Ordered", each) for each in ("one", "two")]
        assert counts == dict.fromkeys(subjects, 7)
        other = transport.dead_letters
        assert other is not None, "the capability is there"
        for size in (1, 3, 7, 100):
            found: list[StoredLetter] = []
            while page := await stage.wait(
                other.read(subjects[0], found[-1].sequence if found else "", size)
            ):
                assert len(page) <= size
                found += page
            assert [each.body for each in found] == [b"%d" % number for number in range(7)]
            assert len({each.sequence for each in found}) == 7
            assert {each.subject for each in found} == {subjects[0]}
        nobody = Subject(stage.namespace, Kind.DEAD, "Ordered", "nobody")
        assert await stage.wait(store.read(nobody)) == []
        assert await stage.wait(store.subjects(f"{stage.namespace}-other")) == {}

    @law(qos=1, needs=LETTERS)
    async def test_removing_takes_that_letter_only_and_once(self, stage: Stage) -> None:
        """Dead letters: gone for good; the second time it is `Lost`; the others stay in order."""
        await _lay(stage, "one", *range(5))
        await _lay(stage, "two", 0)
        store = store_of(stage)
        one, two = (Subject(stage.namespace, Kind.DEAD, "Ordered", each) for each in ("one", "two"))
        letters = await stage.wait(store.read(one))
        assert await stage.wait(store.remove([letters[0], letters[3]])) == [Done(), Done()]
        again = await stage.wait(store.remove([letters[3], letters[4], letters[0]]))
        assert again == [Lost(), Done(), Lost()]
        left = await stage.wait(store.read(one))
        assert left == [letters[1], letters[2]]
        assert await stage.wait(store.read(one, letters[0].sequence)) == left
        assert await stage.wait(store.subjects(stage.namespace)) == {one: 2, two: 1}
        await stage.wait(store.remove(left))
        assert await stage.wait(store.subjects(stage.namespace)) == {two: 1}
        assert await stage.wait(store.remove([])) == []

    @law(qos=1, needs=LETTERS)
    async def test_garbage_among_the_letters_is_shown_and_harms_nothing(self, stage: Stage) -> None:
        """Dead letters: what cannot be read is listed as such, is not replayed, and can be
        removed."""
        bus = stage.bus(settings=ONCE)
        keep(bus, Ordered, fail)
        async with stage.running(bus):
            await bus.publish(Ordered(1))
            await parked(stage, bus, 1)
            (good,) = await stage.wait(letters_of(bus))
            bodies = _damaged(good.stored.body)
            await stage.store(stage.anchor, *(dead(stage, "law", body) for body in bodies))
            found = await stage.wait(letters_of(bus))
            assert [each.letter is None for each in found] == [False] + [True] * len(bodies)
            assert all(each.unreadable for each in found[1:])
            results = await stage.wait(bus.dead_letters.replay(found[1:]))
            assert {each.fate for each in results} == {Fate.REFUSED}
            assert await stage.wait(letters_of(bus)) == found
            results = await stage.wait(bus.dead_letters.purge(found[1:]))
            assert {each.fate for each in results} == {Fate.DONE}
            assert await stage.wait(letters_of(bus)) == found[:1]


async def _lay(stage: Stage, group: str, *numbers: int) -> None:
    """Store dead letters whose bodies are these numbers."""
    for number in numbers:
        await stage.store(stage.anchor, dead(stage, group, b"%d" % number))


def _damaged(good: bytes) -> list[bytes]:
    """Return a good letter with one thing wrong, for each thing."""
    whole = json.loads(good)
    changes: list[dict[str, Any]] = [
        {"type": "Ordered"},
        {"id": None},
        {"data": None},
        {"data": {}},
        {"data": {**whole["data"], "subject": "nonsense"}},
        {"data": {**whole["data"], "group": "other"}},
        {"data": {**whole["data"], "attempts": "2"}},
        {"data": {**whole["data"], "body_base64": "?"}},
    ]
    damaged = [json.dumps({**whole, **change}).encode() for change in changes]
    no_text = good.replace(b"attempts exhausted", b"\x80")
    return [no_text, b"", b"\xff", b"{", b"[]", good[: len(good) // 2], *damaged]
