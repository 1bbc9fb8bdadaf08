"""The kill table: every mutant against the laws, side by side with what is right."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import zip_longest

import attrs

import mutants.engine
import mutants.failures
import mutants.handlers
import mutants.letters
import mutants.memory
import mutants.memory_storing
import mutants.nats
import mutants.nodes
import mutants.redis
import mutants.redis_own
import mutants.stranding  # noqa: F401 - each declares its own
from catga.model.capability import Capability
from catga.testing.harness import Ability
from mutants.bench import LAWS, SCENARIOS, Outcome, Trial, harness_of, try_out
from mutants.mutation import MUTANTS, Base, Mutant
from mutants.own import OWN
from mutants.search import MOST_STEPS, search

__all__ = ["MUTANTS", "Row", "kill_table", "show"]

_SAMPLE = (
    "test_a_lost_reply_is_unknown_and_stored_at_most_once",
    "test_a_publish_whose_answer_was_lost_is_stored_once",
    "test_a_restart_loses_nothing_and_forgets_no_id",
    "test_a_handler_that_raises_gets_it_again_as_the_next_attempt",
    "test_every_group_gets_everything_whatever_others_did_with_it",
    "test_one_id_is_stored_once_and_the_repeat_names_the_original",
    "test_what_was_published_before_the_first_start_is_delivered",
)
"""What is tried beside the laws that are named, where not everything is."""

_EVERYTHING = {**LAWS, **OWN}
_ABOUT = {Base.NODES: Capability.DISCOVERY, Base.LETTERS: Capability.DEAD_LETTERS}
"""What no program sees: only the laws that need this are tried."""


@attrs.frozen
class Row:
    """One mutant, and what was tried on it."""

    mutant: Mutant
    trials: tuple[Trial, ...]
    sound: frozenset[str]
    """The laws that what is right keeps: only those can kill."""
    program: Trial | None
    """What random programs made of it, in memory."""

    @property
    def killers(self) -> list[Trial]:
        """What the mutant breaks and what is right keeps."""
        broken = (trial for trial in self.trials if trial.outcome is Outcome.BROKEN)
        return [trial for trial in broken if trial.law in self.sound]

    @property
    def survives(self) -> str:
        """Why it counts as a survivor; empty when the law named for it kills it."""
        for trial in self.trials:
            if trial.outcome is Outcome.STILLBORN:
                return f"it does not run at all: {trial.words}"
        named = [trial for trial in self.trials if trial.law == self.mutant.law]
        if not named:
            return "the law named for it is not there"
        if named[0].outcome is not Outcome.BROKEN:
            return f"the law named for it: {named[0].outcome} {named[0].words}".rstrip()
        if self.mutant.law not in self.sound:
            return "the law named for it is broken by what is right as well"
        if self.steps > MOST_STEPS:
            return f"the shortest program that shows it has {self.steps} steps"
        return ""

    @property
    def steps(self) -> int:
        """The length of the shortest program that kills it; 0 when none was found."""
        return 0 if self.program is None else self.program.steps or 0


def _laws_for(base: Base) -> list[str]:
    if base in _ABOUT:
        return [name for name, test in LAWS.items() if _ABOUT[base] in _needs(test)]
    if not base.narrow:
        return list(LAWS)
    named = {mutant.law for mutant in MUTANTS if mutant.base is base}
    return [name for name in _EVERYTHING if name in named or name in _SAMPLE]


def _needs(test: object) -> Collection[Capability | Ability]:
    found: Collection[Capability | Ability] = getattr(getattr(test, "law", None), "needs", ())
    return found


def _try_all(base: Base, mutant: Mutant | None) -> tuple[Trial, ...]:
    names = _laws_for(base)
    if base.narrow and mutant is not None:
        names = [name for name in names if name == mutant.law or name in _SAMPLE]
    with harness_of(base) as make:
        return tuple(try_out(name, _EVERYTHING[name], make, mutant) for name in names)


def _examine_right(base: Base) -> tuple[Trial, ...]:
    return _try_all(base, None)


def _examine(number: int) -> tuple[tuple[Trial, ...], Trial | None]:
    """Run in a process of its own: mutants are known there by their number."""
    mutant = MUTANTS[number]
    trials = _try_all(mutant.base, mutant)
    if mutant.base.narrow or mutant.base in _ABOUT:
        return trials, None
    with harness_of(mutant.base) as make:
        return trials, search(make, mutant)


def kill_table(wanted: Sequence[Mutant]) -> Iterator[Row | tuple[Base, tuple[Trial, ...]]]:
    """Try everything out; yield what is right first, base by base, then the mutants."""
    bases = sorted({mutant.base for mutant in wanted})
    # Half of them wait for leases of a real server, so that more fit than there are processors.
    with ProcessPoolExecutor(3 * (os.cpu_count() or 1)) as pool:
        right = {base: pool.submit(_examine_right, base) for base in bases}
        wrong = {
            mutant.name: pool.submit(_examine, MUTANTS.index(mutant)) for mutant in _mixed(wanted)
        }
        sound: Mapping[Base, frozenset[str]] = {
            base: frozenset(t.law for t in future.result() if t.outcome is Outcome.KEPT)
            for base, future in right.items()
        }
        for base, future in right.items():
            yield base, future.result()
        for mutant in wanted:
            trials, program = wrong[mutant.name].result()
            yield Row(mutant, trials, sound[mutant.base], program)


def _mixed(wanted: Sequence[Mutant]) -> Iterator[Mutant]:
    """Yield in turns what waits for a server and what computes."""
    waits = [mutant for mutant in wanted if mutant.base.broker]
    computes = [mutant for mutant in wanted if not mutant.base.broker]
    for pair in zip_longest(waits, computes):
        yield from filter(None, pair)


def show(rows: Sequence[Row], *, everything: bool) -> Iterator[str]:
    """Yield the lines of the table."""
    width = max(len(row.mutant.name) for row in rows)
    yield f"{'mutant':{width}}  base    laws     scenarios  program  killed by"
    for row in rows:
        laws = _count(row, scenarios=False)
        scenarios = _count(row, scenarios=True)
        steps = "-" if row.program is None else f"{row.steps or 'none'}"
        killer = f"SURVIVES: {row.survives}" if row.survives else row.mutant.law
        name = f"{row.mutant.name:{width}}  {row.mutant.base:6}"
        yield f"{name}  {laws:7}  {scenarios:9}  {steps:7}  {killer}"
        if everything:
            yield f"    {row.mutant.wrong}"
            for trial in (*row.killers, *((row.program,) if row.program and row.steps else ())):
                yield f"    {trial.law} ({trial.seconds:.1f} s): {trial.words}"
    yield "laws, scenarios: broken of those tried out; program: steps of the shortest that kills"


def _count(row: Row, *, scenarios: bool) -> str:
    tried = [trial for trial in row.trials if trial.outcome is not Outcome.NOT_SHOWN]
    broken, shown = (
        sum((trial.law in SCENARIOS) is scenarios for trial in trials)
        for trials in (row.killers, tried)
    )
    return f"{broken}/{shown}"
