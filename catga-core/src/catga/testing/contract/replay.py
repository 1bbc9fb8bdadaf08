"""Replay: the way back from the dead letters leads to one group only, and is taken once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs

from catga.bus import Bus
from catga.engine.context import Context
from catga.engine.letterbox import LetterFilter
from catga.engine.replaying import Fate, FoundLetter, Replayer, Result
from catga.errors import ConnectionLost, TransportError
from catga.model.capability import Capability
from catga.spi import EffectKey, Kind, Outgoing, PublishResult, Rejected, Source, Unknown
from catga.testing.contract.letters import (
    LETTERS,
    ONCE,
    dead,
    fail,
    fails_until,
    letter_in,
    letters_of,
    parked,
    store_of,
)
from catga.testing.contract.messages import Charged, Ordered, keep
from catga.testing.harness import law
from catga.testing.raising import raises
from catga.testing.stage import Stage

__all__ = ["ReplayContract"]

_Send = Callable[[Sequence[Outgoing]], Awaitable[list[PublishResult]]]


class ReplayContract:
    """Laws of what comes back from the dead letters."""

    @law(qos=1, needs=LETTERS)
    async def test_a_replay_reaches_the_failing_group_only_and_once(self, stage: Stage) -> None:
        """Dead letters: under a new broker id, the message id is the same, attempts begin anew;
        other groups see nothing."""
        failing, other = stage.bus(group="one", settings={"attempts": 2}), stage.bus(group="two")
        heard, untouched = keep(failing, Ordered, fails_until(lambda: ready)), keep(other, Ordered)
        ready = False
        async with stage.running(failing, other):
            message = Ordered(1)
            await failing.publish(message)
            (found,) = await parked(stage, failing, 1)
            ready = True
            (result,) = await _replay(stage, failing, found)
            assert result.fate is Fate.DONE
            await stage.until(lambda: failing.counts()["one/Ordered"].get("ack"))
            await stage.pass_time(0.5)
            assert await stage.wait(letters_of(failing)) == []
        assert heard.calls == [(1, 1), (1, 2), (1, 1)]
        assert untouched.calls == [(1, 1)]
        (back,) = stage.tap.stored(Kind.REDO)
        (original,) = stage.tap.stored(Kind.LOG)
        assert back.subject.group == "one"
        assert back.message_id != original.message_id, "or the broker takes it for what it had"
        assert json.loads(back.body)["id"] == message.message_id
        assert (back.body, back.replays) == (original.body, 1)

    @law(qos=1, needs=LETTERS)
    async def test_replaying_twice_or_by_two_at_once_runs_it_once(self, stage: Stage) -> None:
        """Dead letters: the broker id is derived from the letter, so that one copy is stored,
        also when whoever replayed it died before the removal."""
        bus, second = stage.bus(settings=ONCE), stage.bus(consume=False)
        heard = keep(bus, Ordered, fails_until(lambda: ready))
        ready = False
        async with stage.running(bus, second):
            await bus.publish(Ordered(1))
            found = await parked(stage, bus, 1)
            ready = True
            replays = [each.dead_letters.replay(found) for each in (bus, second, bus, second)]
            results = [each for (each,) in await stage.wait(_gather(replays))]
            assert sorted(each.fate for each in results) == [Fate.DONE, *[Fate.GONE] * 3]
            body = found[0].stored.body
            await stage.store(stage.anchor, dead(stage, "law", body))
            await _replay(stage, second, *await stage.wait(letters_of(second)))
            await stage.until(lambda: bus.counts()["law/Ordered"].get("ack"))
            await stage.pass_time(0.5)
        assert heard.calls == [(1, 1), (1, 1)]

    @law(qos=1, needs=LETTERS)
    async def test_a_letter_is_removed_only_when_its_replay_is_stored(self, stage: Stage) -> None:
        """Dead letters: refused, unknown, or broken off before, at, or after the publish: it lies
        there still, can be replayed again, and runs once."""
        bus = stage.bus(settings=ONCE)
        heard = keep(bus, Ordered, fails_until(lambda: ready))
        ready = False
        async with stage.running(bus):
            await bus.publish(Ordered(1))
            found = await parked(stage, bus, 1)
            ready = True
            error = TransportError("not now")
            for result in (Rejected(error), Unknown(error)):
                (failed,) = await stage.wait(_with(stage, _answers(result)).replay(found))
                assert (failed.fate, str(error) in failed.reason) == (Fate.FAILED, True)
                assert await stage.wait(letters_of(bus)) == found
            for publishes in (False, True):
                crash = _crashes(stage if publishes else None)
                with raises(ConnectionLost, naming="died"):
                    await stage.wait(_with(stage, crash).replay(found))
                assert await stage.wait(letters_of(bus)) == found
            (done,) = await _replay(stage, bus, *found)
            assert done.fate is Fate.DONE
            await stage.until(lambda: bus.counts()["law/Ordered"].get("ack"))
            await stage.pass_time(0.5)
            assert await stage.wait(letters_of(bus)) == []
        assert heard.calls == [(1, 1), (1, 1)]

    @law(qos=1, needs=LETTERS)
    async def test_a_replay_that_fails_again_is_a_letter_again_up_to_the_guard(
        self, stage: Stage
    ) -> None:
        """Dead letters: with one replay more; beyond the bound it is refused, and stays."""
        bus = stage.bus(settings=ONCE)
        heard = keep(bus, Ordered, fail)
        async with stage.running(bus):
            await bus.publish(Ordered(1))
            for replays in range(3):
                (found,) = await parked(stage, bus, replays + 1)
                assert letter_in(found).replays == replays
                (result,) = await stage.wait(bus.dead_letters.replay([found], 3))
                assert result.fate is Fate.DONE
            (found,) = await parked(stage, bus, 4)
            (result,) = await stage.wait(bus.dead_letters.replay([found], 3))
            assert (result.fate, "3 times" in result.reason) == (Fate.REFUSED, True)
            assert await stage.wait(letters_of(bus)) == [found]
            assert letter_in(found).message_id == stage.tap.stored(Kind.LOG)[0].message_id
            (result,) = await stage.wait(bus.dead_letters.replay([found], 4))
            assert result.fate is Fate.DONE
            await parked(stage, bus, 5)
        assert heard.calls == [(1, 1)] * 5

    @law(qos=2, needs=LETTERS)
    async def test_at_qos_2_a_replayed_message_runs_and_is_completed_once(
        self, stage: Stage
    ) -> None:
        """Dead letters, QoS 2: that its id was seen does not stop it; that it was completed
        does."""
        bus = stage.bus(settings=ONCE)
        heard = keep(bus, Charged, fails_until(lambda: ready))
        ready = False
        async with stage.running(bus):
            await bus.publish(Charged(1))
            (found,) = await parked(stage, bus, 1, "Charged")
            ready = True
            await _replay_two_copies(stage, bus, found)
            await stage.pass_time(0.5)
            assert await stage.wait(letters_of(bus)) == []
        assert heard.calls == [(1, 1), (1, 1)]

    @law(qos=2, needs=[*LETTERS, Capability.ATOMIC])
    async def test_what_a_replayed_message_writes_is_written_once(self, stage: Stage) -> None:
        """Dead letters, QoS 2, second law: the runs that failed wrote nothing; the replay writes,
        once, also when another copy of it comes back."""
        bus = stage.bus(settings=ONCE)
        ready = False

        @bus.handle(Charged)
        async def handle(_charged: Charged, context: Context) -> None:
            tx = context.transaction
            tx.write("count", b"%d" % (int(await tx.read("count") or b"0") + 1))
            if not ready:
                raise ValueError("after it was written")

        async with stage.running(bus):
            await bus.publish(Charged(1))
            (found,) = await parked(stage, bus, 1, "Charged")
            ready = True
            await _replay_two_copies(stage, bus, found)
            assert stage.anchor.effects is not None
            key = EffectKey(stage.namespace, "law", "Charged", "count")
            (count,) = await stage.wait(stage.anchor.effects.read([key]))
        assert count.value == b"1"

    @law(qos=1, needs=LETTERS)
    async def test_replayed_poison_is_parked_again_with_its_bytes(self, stage: Stage) -> None:
        """Dead letters: what nobody can read comes back as it was, one replay later."""
        bus = stage.bus()
        keep(bus, Ordered)
        async with stage.running(bus):
            await stage.store(stage.anchor, stage.out("Ordered", b"\xff bad"))
            (found,) = await parked(stage, bus, 1)
            letter = letter_in(found)
            assert (letter.cause, letter.created_at, letter.body) == ("poison", None, b"\xff bad")
            await _replay(stage, bus, found)
            (again,) = await parked(stage, bus, 2)
        letter = letter_in(again)
        assert (letter.cause, letter.attempts, letter.replays) == ("poison", 1, 1)
        assert (letter.subject.kind, letter.body) == (Kind.REDO, b"\xff bad")

    @law(qos=1, needs=LETTERS)
    async def test_what_nobody_would_get_is_not_replayed(self, stage: Stage) -> None:
        """Dead letters: without its body, or to a group that is not there, it is refused with the
        reason, and stays."""
        bus = stage.bus(settings=ONCE)
        keep(bus, Ordered, fail)
        async with stage.running(bus):
            await bus.publish(Ordered(1))
            (found,) = await parked(stage, bus, 1)
            letter = letter_in(found)
            bare = attrs.evolve(letter, body=b"", body_left_out=9, sequence="1000")
            gone = attrs.evolve(letter, group="gone", sequence="1001")
            await stage.store(stage.anchor, bare.outgoing("law"), gone.outgoing("law"))
            letters = await stage.wait(letters_of(bus))
            assert len(letters) == 3
            results = await _replay(stage, bus, *letters)
            fates = {each.found.place: each.fate for each in results}
            assert sorted(fates.values()) == [Fate.DONE, Fate.REFUSED, Fate.REFUSED]
            reasons = " ".join(each.reason for each in results)
            assert "9 bytes" in reasons
            assert "the group gone takes no Ordered any more" in reasons
            left = await stage.wait(letters_of(bus, LetterFilter(ids=frozenset(fates))))
            assert {each.place for each in left} == {
                place for place, fate in fates.items() if fate is Fate.REFUSED
            }


async def _replay_two_copies(stage: Stage, bus: Bus, found: FoundLetter) -> None:
    """Replay a charge, then a letter of another copy of it, each until it is acknowledged."""
    await _replay(stage, bus, found)
    await stage.until(lambda: bus.counts()["law/Charged"].get("ack") == 1)
    elsewhere = attrs.evolve(letter_in(found), sequence=f"{letter_in(found).sequence}0")
    await stage.store(stage.anchor, elsewhere.outgoing("law"))
    (another,) = await stage.wait(letters_of(bus))
    (result,) = await _replay(stage, bus, another)
    assert result.fate is Fate.DONE
    await stage.until(lambda: bus.counts()["law/Charged"].get("ack") == 2)


async def _replay(stage: Stage, bus: Bus, *found: FoundLetter) -> list[Result]:
    return await stage.wait(bus.dead_letters.replay(found))


def _with(stage: Stage, send: _Send) -> Replayer:
    """Return what replays by way of `send`."""

    async def is_there(_: Source) -> None:
        pass

    return Replayer(store_of(stage), send, is_there)


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
