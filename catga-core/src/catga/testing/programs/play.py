"""Playing a program on a harness, and saying what it broke as code that can be kept."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from catga.testing.harness import Harness
from catga.testing.programs.coverage import Coverage
from catga.testing.programs.execute import execute
from catga.testing.programs.history import History
from catga.testing.programs.laws import Violation, broken
from catga.testing.programs.steps import Program, Step, Together
from catga.testing.stage import Stage

__all__ = ["as_code", "keep_the_laws", "play", "without_logs"]


def play(harness: Harness, program: Program, name: str = "") -> History | None:
    """Execute `program` in one run of a loop of its own; None when the harness cannot.

    What it lacks then is listed in `Harness.not_shown` under `name`. Raises what a broker that is
    well should not refuse, and `TimeoutError`.
    """
    histories: list[History] = []

    async def act(stage: Stage) -> None:
        histories.append(await execute(program, stage))

    harness.run(act, program.needs, name)
    return histories[0] if histories else None


def keep_the_laws(
    harness: Harness,
    program: Program,
    *,
    shows: Collection[str] = (),
    name: str = "",
    coverage: Coverage | None = None,
) -> None:
    """Assert that `program` breaks no law here, and that it came to everything in `shows`: kinds
    of steps, deeds, outcomes of publishing, words for what became of a delivery."""
    history = play(harness, program, name)
    if history is None:
        return
    counted = Coverage() if coverage is None else coverage
    counted.add(program, history)
    violations = broken(history)
    assert not violations, _report(program, history, violations)
    missing = [kind for kind in shows if not counted.counts[kind]]
    assert not missing, f"it never came to {', '.join(missing)}:\n{_events(history)}"


def as_code(program: Program) -> str:
    """Return `program` as a module with one test; `harness` is the fixture of whoever keeps it."""
    steps = "".join(f"            {step!r},\n" for step in program.steps)
    blank = Program(())
    rest = "".join(
        f"        {field}={value!r},\n"
        for field in ("members", "attempts", "effects")
        if (value := getattr(program, field)) != getattr(blank, field)
    )
    names = "".join(f"    {name},\n" for name in (*sorted(_kinds(program.steps)), "keep_the_laws"))
    return (
        "from catga.testing.harness import Harness\n"
        f"from catga.testing.programs import (\n{names})\n\n\n"
        "def test_a_program_that_once_failed(harness: Harness) -> None:\n"
        f"    program = Program(\n        steps=(\n{steps}        ),\n{rest}    )\n"
        "    keep_the_laws(harness, program)\n"
    )


def _kinds(steps: Iterable[Step]) -> set[str]:
    """Return the names of the classes that a program of these steps is made of."""
    names = {Program.__name__}
    for step in steps:
        names.add(type(step).__name__)
        if isinstance(step, Together):
            names |= _kinds(step.steps)
    return names


def _report(program: Program, history: History, violations: list[Violation]) -> str:
    laws = "".join(f"  {each.law}: {each.words}\n" for each in violations)
    return f"broken laws:\n{laws}\n{as_code(program)}\nwhat happened:\n{_events(history)}"


def _events(history: History) -> str:
    everything = (
        *history.published,
        *history.runs,
        *history.answering,
        *history.asked,
        *history.settled,
        *history.parked,
        *history.disturbances,
        *history.copies,
        history.books,
    )
    return "".join(f"  {each}\n" for each in everything)


@contextmanager
def without_logs() -> Iterator[None]:
    """Keep Catga's own log still: thousands of planned failures would drown what matters."""
    logger = logging.getLogger("catga")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
