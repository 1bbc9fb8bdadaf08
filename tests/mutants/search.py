"""Searching for the shortest program that shows a mutant wrong and what is right right."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import nullcontext

from hypothesis import HealthCheck, Phase, find, settings
from hypothesis.errors import NoSuchExample

from catga.testing.harness import Harness
from catga.testing.programs import Program, Together
from catga.testing.programs.laws import broken
from catga.testing.programs.play import play
from catga.testing.programs.strategies import programs
from mutants.bench import Hangs, Outcome, Trial, bounded
from mutants.mutation import Mutant

__all__ = ["MOST_STEPS", "length", "search", "violations"]

MOST_STEPS = 10
"""A program that kills in memory must shrink to no more."""
_PROGRAMS = 400
_SECONDS = 120.0
_SEARCH = settings(
    max_examples=_PROGRAMS,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)


def violations(
    program: Program, make: Callable[[], Harness], mutant: Mutant | None = None
) -> list[str]:
    """Return the laws that break when `program` runs on `mutant`, or on what is right."""
    random.seed(1)  # the jitter of the backoff: the same program must end the same way
    with mutant.applied() if mutant is not None else nullcontext():
        try:
            history = play(make(), program)
        except Exception as error:
            return [f"it breaks off: {error!r}"[:100]]
    return [] if history is None else sorted({each.law for each in broken(history)})


def length(program: Program) -> int:
    """Return the number of steps, each of those that are done together counted."""
    return sum(len(step.steps) if isinstance(step, Together) else 1 for step in program.steps)


def search(make: Callable[[], Harness], mutant: Mutant) -> Trial:
    """Draw programs until one kills, and shrink it; the same ones each time."""
    shortest: list[Program] = []

    def kills(program: Program) -> bool:
        # What is right must stand the same program, or it would prove nothing.
        wrong = bool(violations(program, make, mutant)) and not violations(program, make)
        if wrong:
            shortest[:] = [min([*shortest, program], key=length)]
        return wrong

    began, laws = time.monotonic(), ""
    try:
        with bounded(_SECONDS):
            shortest[:] = [find(programs(), kills, settings=_SEARCH, random=random.Random(1))]
            laws = ", ".join(violations(shortest[0], make, mutant))
    except (NoSuchExample, Hangs):
        pass  # what was found so far counts
    seconds = time.monotonic() - began
    if not shortest:
        words = f"none of {_PROGRAMS} programs"
        return Trial("programs", Outcome.KEPT, words, seconds)
    words = f"{laws}: {shortest[0]!r}"
    return Trial("programs", Outcome.BROKEN, words, seconds, length(shortest[0]))
