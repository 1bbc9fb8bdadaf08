"""Dead letters: everything that is known is kept, and the way back leads to one group only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs

from catga.bus import Bus
from catga.engine.deadletters import DeadLetter
from catga.engine.letterbox import Wanted
from catga.engine.replaying import Fate, FoundLetter, Replayer, Result
from catga.errors import CapabilityError, ConnectionLost, TransportError
from catga.model.capability import Capability
from catga.spi import (
    DeadLetterStore,
    Done,
    Kind,
    Lost,
    Outgoing,
    PublishResult,
    Rejected,
    Source,
    StoredLetter,
    Subject,
    Unknown,
)
from catga.testing.contract.messages import Charged, Ordered, keep
from catga.testing.harness import law
from catga.testing.raising import raises
from catga.testing.stage import Stage

__all__ = ["DeadLettersContract"]

_Send = Callable[[Sequence[Outgoing]], Awaitable[list[PublishResult]]]
_LETTERS = [Capability.DEAD_LETTERS]
_ONCE: dict[str, object] = {"attempts": 1}


class DeadLettersContract:
    """Laws of what a group gave up on."""

    @law(qos=1)
    async def test_dead_letters_can_be_looked_at_or_it_is_refused(self, stage: Stage) -> None:
        """Dead letters: a transport that cannot show them says so; an empty list would be a lie."""
        bus = stage.bus(consume=False)
        async with stage.running(bus):
            if Capability.DEAD_LETTERS in stage.anchor.capabilities:
                assert await stage.wait(_all(bus)) == []
                assert await stage.wait(bus.dead_letters.counts()) == {}
                return
            assert stage.anchor.dead_letters is None
            with raises(CapabilityError, naming=Capability.DEAD_LETTERS.value):
                _ = bus.dead_letters

    @law(qos=1, needs=_LETTERS)
    async def test_a_dead_letter_keeps_all_that_is_known(self, stage: Stage) -> None:
        """QoS 1, seventh law: with cause, traceback, attempts, times, place, bytes, group."""
        bus = stage.bus(settings={"attempts": 2}, group="law")
        heard = keep(bus, Ordered, _fail)
        began = stage.clock.now()
        async with stage.running(bus):
            message = Ordered(1)
            receipt = await bus.publish(message)
            (found,) = await _parked(stage, bus, 1)
            (original,) = stage.tap.stored(Kind.LOG)
        letter = _read(found)
        assert heard.calls == [(1, 1), (1, 2)]
        assert (letter.message_id, letter.group) == (message.message_id, "law")
        assert (letter.cause, letter.error) == ("attempts exhausted", "ValueError: number 1 fails")
        assert "Traceback (most recent call last)" in letter.traceback
        assert "in _fail" in letter.traceback
        assert (letter.attempts, letter.replays, letter.body_left_out) == (2, 0, 0)
        assert (letter.subject, letter.body) == (original.subject, original.body)
        assert letter.sequence == receipt.sequence
        assert letter.created_at == message.created_at
        assert began <= letter.parked_at <= stage.clock.now()
        assert found.stored.subject == Subject(stage.namespace, Kind.DEAD, "Ordered", "law")

    @law(qos=1, needs=_LETTERS)
    async def test_a_dead_letter_is_there_before_its_original_is_settled(
        self, stage: Stage
    ) -> None:
        """QoS 1, seventh law: parked, then settled: whoever knows that it is settled finds it."""
        bus = stage.bus(settings=_ONCE)
        keep(bus, Ordered, _fail)
        async with stage.running(bus):
            for number in range(5):
                await bus.publish(Ordered(number))
                settled = number + 1
                await stage.until(
                    lambda: bus.counts()["law/Ordered"].get("dead-letter", 0) >= settled  # noqa: B023 - awaited here
                )
                assert len(await stage.wait(_all(bus))) >= settled

    @law(qos=1, needs=_LETTERS)
    async def test_letters_are_read_in_their_order_page_by_page(self, stage: Stage) -> None:
        """Dead letters: each page begins behind the last one; nothing is missed or comes twice."""
        transport = await stage.transport()
        for group in ("one", "two"):
            await _lay(stage, group, *range(7))
        store = _store(stage)
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

    @law(qos=1, needs=_LETTERS)
    async def test_removing_takes_that_letter_only_and_once(self, stage: Stage) -> None:
        """Dead letters: gone for good; the second time it is `Lost`; the others stay in order."""
        await _lay(stage, "one", *range(5))
        await _lay(stage, "two", 0)
        store = _store(stage)
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

    @law(qos=1, needs=_LETTERS)
    async def test_garbage_among_the_letters_is_shown_and_harms_nothing(self, stage: Stage) -> None:
        """Dead letters: what cannot be read is listed as such, is not replayed, and can be
        removed."""
        bus = stage.bus(settings=_ONCE)
        keep(bus, Ordered, _fail)
        async with stage.running(bus):
            await bus.publish(Ordered(1))
            await _parked(stage, bus, 1)
            (good,) = await stage.wait(_all(bus))
            bodies = _damaged(good.stored.body)
            await stage.store(stage.anchor, *(_dead(stage, "law", body) for body in bodies))
            found = await stage.wait(_all(bus))
            assert [each.letter is None for each in found] == [False] + [True] * len(bodies)
            assert all(each.unreadable for each in found[1:])
            results = await stage.wait(bus.dead_letters.replay(found[1:]))
            assert {each.fate for each in results} == {Fate.REFUSED}
            assert await stage.wait(_all(bus)) == found
            results = await stage.wait(bus.dead_letters.purge(found[1:]))
            assert {each.fate for each in results} == {Fate.DONE}
            assert await stage.wait(_all(bus)) == found[:1]

    # ---- the way back

    @law(qos=1, needs=_LETTERS)
    async def test_a_replay_reaches_the_failing_group_only_and_once(self, stage: Stage) -> None:
        """Dead letters: under a new broker id, the message id is the same, attempts begin anew;
        other groups see nothing."""
        failing, other = stage.bus(group="one", settings={"attempts": 2}), stage.bus(group="two")
        heard, untouched = keep(failing, Ordered, _until(lambda: ready)), keep(other, Ordered)
        ready = False
        async with stage.running(failing, other):
            message = Ordered(1)
            await failing.publish(message)
            (found,) = await _parked(stage, failing, 1)
            ready = True
            (result,) = await _replay(stage, failing, found)
            assert result.fate is Fate.DONE
            await stage.until(lambda: failing.counts()["one/Ordered"].get("ack"))
            await stage.pass_time(0.5)
            assert await stage.wait(_all(failing)) == []
        assert heard.calls == [(1, 1), (1, 2), (1, 1)]
        assert untouched.calls == [(1, 1)]
        (back,) = stage.tap.stored(Kind.REDO)
        (original,) = stage.tap.stored(Kind.LOG)
        assert back.subject.group == "one"
        assert back.message_id != original.message_id, "or the broker takes it for what it had"
        assert json.loads(back.body)["id"] == message.message_id
        assert (back.body, back.replays) == (original.body, 1)

    @law(qos=1, needs=_LETTERS)
    async def test_replaying_twice_or_by_two_at_once_runs_it_once(self, stage: Stage) -> None:
        """Dead letters: the broker id is derived from the letter, so that one copy is stored,
        also when whoever replayed it died before the removal."""
        bus, second = stage.bus(settings=_ONCE), stage.bus(consume=False)
        heard = keep(bus, Ordered, _until(lambda: ready))
        ready = False
        async with stage.running(bus, second):
            await bus.publish(Ordered(1))
            found = await _parked(stage, bus, 1)
            ready = True
            replays = [each.dead_letters.replay(found) for each in (bus, second, bus, second)]
            results = [each for (each,) in await stage.wait(_gather(replays))]
            assert sorted(each.fate for each in results) == [Fate.DONE, *[Fate.GONE] * 3]
            body = found[0].stored.body
            await stage.store(stage.anchor, _dead(stage, "law", body))
            await _replay(stage, second, *await stage.wait(_all(second)))
            await stage.until(lambda: bus.counts()["law/Ordered"].get("ack"))
            await stage.pass_time(0.5)
        assert heard.calls == [(1, 1), (1, 1)]

    @law(qos=1, needs=_LETTERS)
    async def test_a_letter_is_removed_only_when_its_replay_is_stored(self, stage: Stage) -> None:
        """Dead letters: refused, unknown, or broken off before, at, or after the publish: it lies
        there still, can be replayed again, and runs once."""
        bus = stage.bus(settings=_ONCE)
        heard = keep(bus, Ordered, _until(lambda: ready))
        ready = False
        async with stage.running(bus):
            await bus.publish(Ordered(1))
            found = await _parked(stage, bus, 1)
            ready = True
            error = TransportError("not now")
            for result in (Rejected(error), Unknown(error)):
                (failed,) = await stage.wait(_with(stage, _answers(result)).replay(found))
                assert (failed.fate, str(error) in failed.reason) == (Fate.FAILED, True)
                assert await stage.wait(_all(bus)) == found
            for publishes in (False, True):
                crash = _crashes(stage if publishes else None)
                with raises(ConnectionLost, naming="died"):
                    await stage.wait(_with(stage, crash).replay(found))
                assert await stage.wait(_all(bus)) == found
            (done,) = await _replay(stage, bus, *found)
            assert done.fate is Fate.DONE
            await stage.until(lambda: bus.counts()["law/Ordered"].get("ack"))
            await stage.pass_time(0.5)
            assert await stage.wait(_all(bus)) == []
        assert heard.calls == [(1, 1), (1, 1)]

    @law(qos=1, needs=_LETTERS)
    async def test_a_replay_that_fails_again_is_a_letter_again_up_to_the_guard(
        self, stage: Stage
    ) -> None:
        """Dead letters: with one replay more; beyond the bound it is refused, and stays."""
        bus = stage.bus(settings=_ONCE)
        heard = keep(bus, Ordered, _fail)
        async with stage.running(bus):
            await bus.publish(Ordered(1))
            for replays in range(3):
                (found,) = await _parked(stage, bus, replays + 1)
                assert _read(found).replays == replays
                (result,) = await stage.wait(bus.dead_letters.replay([found], 3))
                assert result.fate is Fate.DONE
            (found,) = await _parked(stage, bus, 4)
            (result,) = await stage.wait(bus.dead_letters.replay([found], 3))
            assert (result.fate, "3 times" in result.reason) == (Fate.REFUSED, True)
            assert await stage.wait(_all(bus)) == [found]
            assert _read(found).message_id == stage.tap.stored(Kind.LOG)[0].message_id
            (result,) = await stage.wait(bus.dead_letters.replay([found], 4))
            assert result.fate is Fate.DONE
            await _parked(stage, bus, 5)
        assert heard.calls == [(1, 1)] * 5

    @law(qos=2, needs=_LETTERS)
    async def test_at_qos_2_a_replayed_message_runs_and_is_completed_once(
        self, stage: Stage
    ) -> None:
        """Dead letters, QoS 2: that its id was seen does not stop it; that it was completed
        does."""
        bus = stage.bus(settings=_ONCE)
        heard = keep(bus, Charged, _until(lambda: ready))
        ready = False
        async with stage.running(bus):
            await bus.publish(Charged(1))
            (found,) = await _parked(stage, bus, 1, "Charged")
            ready = True
            await _replay(stage, bus, found)
            await stage.until(lambda: bus.counts()["law/Charged"].get("ack") == 1)
            elsewhere = attrs.evolve(_read(found), sequence=f"{_read(found).sequence}0")
            await stage.store(stage.anchor, elsewhere.outgoing("law"))
            (another,) = await stage.wait(_all(bus))
            (result,) = await _replay(stage, bus, another)
            assert result.fate is Fate.DONE
            await stage.until(lambda: bus.counts()["law/Charged"].get("ack") == 2)
            await stage.pass_time(0.5)
            assert await stage.wait(_all(bus)) == []
        assert heard.calls == [(1, 1), (1, 1)]

    @law(qos=1, needs=_LETTERS)
    async def test_replayed_poison_is_parked_again_with_its_bytes(self, stage: Stage) -> None:
        """Dead letters: what nobody can read comes back as it was, one replay later."""
        bus = stage.bus()
        keep(bus, Ordered)
        async with stage.running(bus):
            await stage.store(stage.anchor, stage.out("Ordered", b"\xff bad"))
            (found,) = await _parked(stage, bus, 1)
            letter = _read(found)
            assert (letter.cause, letter.created_at, letter.body) == ("poison", None, b"\xff bad")
            await _replay(stage, bus, found)
            (again,) = await _parked(stage, bus, 2)
        letter = _read(again)
        assert (letter.cause, letter.attempts, letter.replays) == ("poison", 1, 1)
        assert (letter.subject.kind, letter.body) == (Kind.REDO, b"\xff bad")

    @law(qos=1, needs=_LETTERS)
    async def test_what_nobody_would_get_is_not_replayed(self, stage: Stage) -> None:
        """Dead letters: without its body, or to a group that is not there, it is refused with the
        reason, and stays."""
        bus = stage.bus(settings=_ONCE)
        keep(bus, Ordered, _fail)
        async with stage.running(bus):
            await bus.publish(Ordered(1))
            (found,) = await _parked(stage, bus, 1)
            letter = _read(found)
            bare = attrs.evolve(letter, body=b"", body_left_out=9, sequence="1000")
            gone = attrs.evolve(letter, group="gone", sequence="1001")
            await stage.store(stage.anchor, bare.outgoing("law"), gone.outgoing("law"))
            letters = await stage.wait(_all(bus))
            assert len(letters) == 3
            results = await _replay(stage, bus, *letters)
            fates = {each.found.place: each.fate for each in results}
            assert sorted(fates.values()) == [Fate.DONE, Fate.REFUSED, Fate.REFUSED]
            reasons = " ".join(each.reason for each in results)
            assert "9 bytes" in reasons
            assert "the group gone takes no Ordered any more" in reasons
            left = await stage.wait(_all(bus, Wanted(ids=frozenset(fates))))
            assert {each.place for each in left} == {
                place for place, fate in fates.items() if fate is Fate.REFUSED
            }


async def _fail(number: int, _attempt: int) -> None:
    raise ValueError(f"number {number} fails")


def _until(ready: Callable[[], bool]) -> Callable[[int, int], Awaitable[None]]:
    """Return what fails until it is told that all is well now."""

    async def act(number: int, attempt: int) -> None:
        if not ready():
            await _fail(number, attempt)

    return act


async def _all(bus: Bus, wanted: Wanted | None = None) -> list[FoundLetter]:
    return [found async for found in bus.dead_letters.find(wanted)]


async def _parked(stage: Stage, bus: Bus, count: int, type_: str = "Ordered") -> list[FoundLetter]:
    """Wait until the bus has parked so many; return the letters that are there."""
    name = f"{bus.group}/{type_}"
    await stage.until(lambda: bus.counts()[name].get("dead-letter", 0) >= count)
    return await stage.wait(_all(bus))


async def _replay(stage: Stage, bus: Bus, *found: FoundLetter) -> list[Result]:
    return await stage.wait(bus.dead_letters.replay(found))


def _with(stage: Stage, send: _Send) -> Replayer:
    """Return what replays by way of `send`."""

    async def is_there(_: Source) -> None:
        pass

    return Replayer(_store(stage), send, is_there)


def _answers(result: PublishResult) -> _Send:
    async def send(batch: Sequence[Outgoing]) -> list[PublishResult]:
        return [result] * len(batch)

    return send


def _crashes(stage: Stage | None) -> _Send:
    """Return what dies before the publish, or on a stage right after it."""

    async def send(batch: Sequence[Outgoing]) -> list[PublishResult]:
        if stage is not None:
            await stage.anchor.publish(batch)
        raise ConnectionLost("died")

    return send


async def _gather(work: list[Any]) -> list[Any]:
    return list(await asyncio.gather(*work))


def _read(found: FoundLetter) -> DeadLetter:
    assert found.letter is not None, found.unreadable
    return found.letter


def _store(stage: Stage) -> DeadLetterStore:
    store = stage.anchor.dead_letters
    assert store is not None, "the capability is there"
    return store


def _dead(stage: Stage, group: str, body: bytes, type_: str = "Ordered") -> Outgoing:
    return stage.out(type_, body, kind=Kind.DEAD, group=group)


async def _lay(stage: Stage, group: str, *numbers: int) -> None:
    """Store dead letters whose bodies are these numbers."""
    for number in numbers:
        await stage.store(stage.anchor, _dead(stage, group, b"%d" % number))


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
    return [b"", b"\xff", b"{", b"[]", good[: len(good) // 2], *damaged]
