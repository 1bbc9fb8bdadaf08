"""The laws of programs bite: each finds the history that breaks it, and only that one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import attrs
import pytest
from hypothesis import find, settings

from catga.errors import ConfigurationError
from catga.model.capability import Capability
from catga.testing.harness import Ability, Harness
from catga.testing.programs import (
    Again,
    Ask,
    CutAtCompletion,
    CutAtWrite,
    Delay,
    Drain,
    HalfClose,
    Pause,
    Program,
    Publish,
    Replay,
    Restart,
    Together,
    keep_the_laws,
    steps,
)
from catga.testing.programs.coverage import Coverage
from catga.testing.programs.history import (
    Asked,
    Books,
    Copy,
    Disturbance,
    History,
    Parked,
    Published,
    Run,
    Settled,
)
from catga.testing.programs.laws import LAWS, broken
from catga.testing.programs.play import as_code
from catga.testing.programs.profiles import PROFILES, chosen_profile
from catga.testing.programs.scenarios import SCENARIOS
from catga.testing.programs.strategies import programs


def run(qos: int, start: float, deed: str = "ok", attempt: int = 1, word: str = "ack") -> Run:
    return Run(
        group="a",
        id=f"m{qos}",
        qos=qos,
        member=0,
        attempt=attempt,
        deed=deed,
        start=start,
        end=start + 0.1,
        effect=deed == "ok",
        word=word,
        settled=start + 0.2,
    )


def good() -> History:
    """One message of each quality; those that are stored fail once, a fourth is rejected."""
    history = History(("a",), attempts=3, backoff=(1.0, 2.0))
    history.published = [
        Published(f"m{qos}", qos, 0.0, frozenset("a"), "accepted") for qos in (0, 1, 2)
    ]
    history.published.append(Published("m9", 1, 0.0, frozenset("a"), "accepted"))
    history.runs = [run(0, 0.0)]
    for qos in (1, 2):
        history.runs += [run(qos, 1.0, "raise", word="nack"), run(qos, 3.0, attempt=2)]
    rejected = run(1, 1.0, "reject", word="dead-letter")
    rejected.id = "m9"
    history.runs.append(rejected)
    history.settled = [
        Settled(each.group, each.id, each.qos, each.word, each.settled) for each in history.runs
    ]
    history.parked = [Parked("a", 1, "letter", 1.1)]
    history.copies = [Copy("m1", 1), Copy("m2", 2), Copy("m9", 1)]
    history.letters = frozenset({("a", "m9")})
    history.effects = True
    place = ("a", "m2")
    history.books = Books(frozenset({place}), {place: 1}, Counter([place]), Counter([place]))
    answering = run(2, 3.0)
    answering.id = "q0"
    history.answering = [answering]
    history.asked = [Asked("q0", answer="one"), Asked("q0", last=True, answer="one")]
    return history


def no_effect(history: History) -> None:
    history.runs[4].effect = False


def no_letter(history: History) -> None:
    history.letters = frozenset()


def twice(number: int) -> Callable[[History], None]:
    def change(history: History) -> None:
        again = run(history.runs[number].qos, 3.05, attempt=history.runs[number].attempt + 1)
        again.start = again.end = 3.1
        again.settled = 3.2
        history.runs.insert(number + 1, again)

    return change


def a_stranger(history: History) -> None:
    history.copies.append(Copy("m7", 1))


def other_content(history: History) -> None:
    history.runs[0].intact = False


def refused(history: History) -> None:
    history.published[1].outcome = "rejected"


def restless(history: History) -> None:
    history.quiet = False


def unheard(history: History) -> None:
    del history.runs[0]


def acknowledged_first(history: History) -> None:
    history.settled.insert(0, Settled("a", "m1", 1, "ack", 0.5))


def again_after_the_end(history: History) -> None:
    history.runs[4].settled = 3.05
    twice(4)(history)


def two_copies(history: History) -> None:
    history.copies.append(Copy("m2", 2))


def no_copy(history: History) -> None:
    history.copies.pop(1)


def two_new_receipts(history: History) -> None:
    history.published.append(attrs.evolve(history.published[2]))


def attempts_from_zero(history: History) -> None:
    for each in history.runs:
        each.attempt -= 1


def attempts_that_fall(history: History) -> None:
    history.disturbances.append(Disturbance("crash", 0.0, member=7))
    history.runs[1].attempt = 3


def hot_loop(history: History) -> None:
    history.runs[2].start = 1.1001


def side_by_side(history: History) -> None:
    history.runs[1].end = 3.5


def parked_too_early(history: History) -> None:
    history.runs[1].word = "dead-letter"


def tried_for_ever(history: History) -> None:
    history.attempts = 1


def not_parked(history: History) -> None:
    history.parked.clear()


def parked_afterwards(history: History) -> None:
    history.parked[0] = attrs.evolve(history.parked[0], at=9.0)


def never_settled(history: History) -> None:
    history.settled = [each for each in history.settled if each.id != "m2"]


def lost_without_a_cause(history: History) -> None:
    history.settled.append(Settled("a", "m1", 1, "lost", 4.0))


def books(**change: Any) -> Callable[[History], None]:
    def keep(history: History) -> None:
        assert history.books is not None
        history.books = attrs.evolve(history.books, **change)

    return keep


def recorded_first(history: History) -> None:
    history.runs[3].recorded = True


def answered_otherwise(history: History) -> None:
    history.asked[1].answer = "two"


def answered_never_again(history: History) -> None:
    history.asked[1].answer = None


PLACE = ("a", "m2")


def too_early(history: History) -> None:
    history.published[1].due = 1.5


def replayed_in_vain(history: History) -> None:
    history.replayed["a", "m9"] = history.perhaps_replayed["a", "m9"] = 1


WRONG: dict[str, list[Callable[[History], None]]] = {
    "only_what_was_published": [a_stranger, other_content],
    "what_was_refused_stays_away": [refused],
    "it_comes_to_rest": [restless],
    "at_most_once": [twice(0)],
    "live_members_get_it": [unheard],
    "at_least_once": [no_effect, no_letter],
    "nothing_is_acknowledged_unhandled": [no_effect, acknowledged_first],
    "every_repeat_has_a_cause": [twice(2)],
    "exactly_once": [twice(4)],
    "done_is_done": [again_after_the_end],
    "stored_once": [two_copies, no_copy],
    "nothing_comes_before_its_time": [too_early],
    "receipts_tell_duplicates": [two_new_receipts],
    "attempts_count_up": [attempts_from_zero, attempts_that_fall],
    "a_failure_waits": [hot_loop],
    "one_at_a_time": [side_by_side],
    "the_last_failure_parks": [parked_too_early, tried_for_ever],
    "parked_before_settled": [not_parked, parked_afterwards],
    "the_books_balance": [replayed_in_vain, never_settled, lost_without_a_cause],
    "each_effect_once": [
        books(effects={PLACE: 2}),
        books(effects={PLACE: 0}),
        books(records=frozenset()),
        books(sealed=Counter()),
        books(sealed=Counter([PLACE] * 2)),
    ],
    "recorded_when_completed": [
        books(records=frozenset()),
        books(records=frozenset({PLACE, ("b", "m2")})),
    ],
    "no_early_record": [recorded_first],
    "derived_once": [books(echoes=Counter([PLACE] * 2)), books(echoes=Counter())],
    "one_answer": [answered_otherwise, answered_never_again],
}


def test_a_good_history_breaks_nothing() -> None:
    assert broken(good()) == []


def test_a_dead_letter_counts_though_its_member_was_never_told() -> None:
    history = good()
    untold = next(each for each in history.settled if each.id == "m9")
    history.settled[history.settled.index(untold)] = attrs.evolve(untold, word="unknown")
    assert "at_least_once" not in {each.law for each in broken(history)}


def test_there_is_a_wrong_history_for_each_law() -> None:
    assert list(WRONG) == list(LAWS)


@pytest.mark.parametrize(
    ("law", "change"), [(law, change) for law, changes in WRONG.items() for change in changes]
)
def test_each_law_finds_what_breaks_it(law: str, change: Callable[[History], None]) -> None:
    history = good()
    change(history)
    assert law in {violation.law for violation in broken(history)}


def test_what_is_replayed_runs_once_more_from_the_first_attempt() -> None:
    history = good()
    again = run(1, 5.0)
    again.id = "m9"
    history.runs.append(again)
    history.settled.append(Settled("a", "m9", 1, "ack", again.settled))
    assert {each.law for each in broken(history)} == {"attempts_count_up", "the_books_balance"}
    replayed_in_vain(history)
    assert broken(history) == []


def test_who_died_may_have_used_up_the_first_attempt_of_a_replay() -> None:
    history = good()
    next(each for each in history.runs if each.id == "m9").attempt = 3
    again = run(2, 5.0)
    again.id = "m9"
    history.runs.append(again)
    history.settled.append(Settled("a", "m9", 1, "ack", again.settled))
    history.disturbances.append(Disturbance("crash", 4.9, member=7))
    assert "attempts_count_up" in {each.law for each in broken(history)}, "nothing was replayed"
    replayed_in_vain(history)
    assert "attempts_count_up" not in {each.law for each in broken(history)}


def test_only_a_fault_that_touched_the_run_excuses_a_repeat() -> None:
    history = good()
    twice(4)(history)
    history.disturbances = [Disturbance("crash", 1.0, member=5)]
    assert "exactly_once" in {violation.law for violation in broken(history)}, "another's crash"
    history.disturbances = [Disturbance("crash", 9.0, member=0)]
    assert "exactly_once" in {violation.law for violation in broken(history)}, "a later crash"
    history.disturbances = [Disturbance("crash", 3.15, member=0)]
    assert "exactly_once" not in {violation.law for violation in broken(history)}


# ---- programs as values


def test_a_program_prints_as_the_code_that_makes_it() -> None:
    everything = {name: getattr(steps, name) for name in steps.__all__}
    for scenario in SCENARIOS.values():
        assert eval(repr(scenario.program), everything) == scenario.program


def test_what_is_printed_of_a_program_needs_nothing_else_to_run() -> None:
    nested = Program((Publish(2, b=("raise",)), Together((Again(), Publish()))), members=(1, 0))
    for program in (nested, *(scenario.program for scenario in SCENARIOS.values())):
        names: dict[str, Any] = {}
        exec(as_code(program), names)
        played: list[tuple[object, Program]] = []
        names["keep_the_laws"] = lambda *given, played=played: played.append(given)
        names["test_a_program_that_once_failed"]("harness")
        assert played == [("harness", program)]


@pytest.mark.parametrize(
    "kind", [Restart, CutAtCompletion, CutAtWrite, Delay, HalfClose, Pause, Together, Replay]
)
def test_every_kind_of_step_and_fault_is_drawn(kind: type) -> None:
    drawn = find(
        programs(abilities=frozenset(Ability)),
        lambda program: any(isinstance(step, kind) for step in program.steps),
        settings=settings(database=None, deadline=None, max_examples=2000),
        random=Random(1),
    )
    assert len(drawn.steps) <= 2, "and the shortest is found"


@pytest.mark.parametrize(("programs", "publishes"), [(299, 180), (99, 30)])
def test_what_was_hardly_exercised_is_named(programs: int, publishes: int) -> None:
    coverage = Coverage(programs=programs)
    program = Program((Publish(2), Publish(1)))
    coverage.add(program, good())
    lacking = coverage.lacking({Ability.RESTART, Capability.AT_LEAST_ONCE})
    assert lacking["Publish"] == (2, publishes)
    assert ("Restart" in lacking) == (programs > 200)
    assert "CutAtWrite" not in lacking
    assert {"Ask", "completed"} <= {*coverage.lacking({Capability.EXACTLY_ONCE})} - {*lacking}


def test_a_program_that_shows_nothing_fails() -> None:
    harness = Harness(url="inmemory://programs-kit", manual_clock=True)
    with pytest.raises(AssertionError, match="never came to dead-letter"):
        keep_the_laws(harness, Program((Publish(1),)), shows=("ack", "dead-letter"))


def test_a_member_that_has_vanished_concludes_nothing() -> None:
    """Another of its handlers comes back from a question at the very moment it vanishes."""
    harness = Harness(url="inmemory://programs-kit", manual_clock=True)
    asked = (Publish(2), Drain(), Ask(), Publish(2), Publish(2), Publish(2), Ask(1, ("crash",)))
    keep_the_laws(harness, Program(asked, effects=True))


def test_what_the_harness_cannot_do_is_listed_and_not_played() -> None:
    harness = Harness(url="inmemory://programs-kit", manual_clock=True)
    keep_the_laws(harness, Program((Publish(1), Restart())), name="test_restart")
    assert harness.not_shown == {"test_restart": "restart the broker on its data"}


def test_a_profile_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CATGA_TEST_PROFILE", raising=False)
    assert chosen_profile() is PROFILES["dev"]
    monkeypatch.setenv("CATGA_TEST_PROFILE", "nightly")
    assert chosen_profile() is PROFILES["nightly"]
    monkeypatch.setenv("CATGA_TEST_PROFILE", "weekly")
    with pytest.raises(ConfigurationError, match="weekly is none of dev, ci, nightly"):
        chosen_profile()
