"""Parking and replaying, wrong in one way each, over the transport in memory that is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from msgspec.structs import replace

from catga.engine import outcomes, replaying
from catga.engine.deadletters import DeadLetter
from catga.engine.replaying import FoundLetter, Replayer, Result
from catga.spi import Kind, Subject
from mutants.mutation import Base, mutant


@mutant(
    Base.LETTERS,
    replaying,
    "replayed",
    law="test_a_replay_that_fails_again_is_a_letter_again_up_to_the_guard",
)
def replays_under_the_same_broker_id(real: Any) -> Any:
    """What comes back has the id of the message itself at the broker, each time."""

    def replayed(letter: DeadLetter) -> Any:
        return replace(real(letter), message_id=letter.message_id)

    return replayed


@mutant(
    Base.LETTERS,
    replaying,
    "replayed",
    law="test_replaying_twice_or_by_two_at_once_runs_it_once",
)
def replays_under_an_id_of_its_own_each_time(real: Any) -> Any:
    """The broker id of a replay is not derived from the letter."""
    made: list[int] = []

    def replayed(letter: DeadLetter) -> Any:
        made.append(1)
        return replace(real(letter), message_id=f"replay-{len(made)}")

    return replayed


@mutant(
    Base.LETTERS, replaying, "replayed", law="test_a_replay_reaches_the_failing_group_only_and_once"
)
def replays_to_all_groups(real: Any) -> Any:
    """What one group failed on is published to everybody again."""

    def replayed(letter: DeadLetter) -> Any:
        right = real(letter)
        log = Subject(right.subject.namespace, Kind.LOG, right.subject.type)
        return replace(right, subject=log)

    return replayed


@mutant(
    Base.LETTERS, Replayer, "replay", law="test_a_letter_is_removed_only_when_its_replay_is_stored"
)
def removes_before_it_publishes(real: Any) -> Any:
    """A letter is removed, then replayed: whoever dies in between has lost the message."""

    async def replay(self: Replayer, batch: Sequence[FoundLetter]) -> list[Result]:
        await self._store.remove([found.stored for found in batch])
        results: list[Result] = await real(self, batch)
        return results

    return replay


@mutant(
    Base.LETTERS,
    Replayer,
    "refusal",
    law="test_a_replay_that_fails_again_is_a_letter_again_up_to_the_guard",
)
def ignores_the_guard(real: Any) -> Any:
    """However often a letter came back, it is replayed."""

    async def refusal(self: Replayer, found: FoundLetter) -> str:
        self._max_replays = 1_000_000
        words: str = await real(self, found)
        return words

    return refusal


@mutant(
    Base.LETTERS,
    Replayer,
    "refusal",
    law="test_what_nobody_would_get_is_not_replayed",
)
def replays_what_has_no_body(real: Any) -> Any:
    """A letter without its body is replayed as an empty message."""

    async def refusal(self: Replayer, found: FoundLetter) -> str:
        if found.letter is not None:
            found = attrs.evolve(found, letter=attrs.evolve(found.letter, body_left_out=0))
        words: str = await real(self, found)
        return words

    return refusal


@mutant(Base.LETTERS, outcomes, "describe", law="test_a_dead_letter_keeps_all_that_is_known")
def parks_without_the_original_bytes(real: Any) -> Any:
    """The cause is kept, the message is not."""

    def describe(*parts: Any, **more: Any) -> Any:
        return attrs.evolve(real(*parts, **more), body=b"")

    return describe


@mutant(
    Base.LETTERS, replaying, "replayed", law="test_replayed_poison_is_parked_again_with_its_bytes"
)
def forgets_how_often_it_came_back(real: Any) -> Any:
    """Each replay counts as the first."""

    def replayed(letter: DeadLetter) -> Any:
        return replace(real(letter), replays=0)

    return replayed
