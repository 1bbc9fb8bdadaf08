"""The kit itself: a law that is loosened by one line lets a planted fault live."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from mutants.__main__ import main
from mutants.bench import LAWS, Outcome, harness_of, try_out
from mutants.mutation import Mutant
from mutants.table import MUTANTS

BY_NAME = {mutant.name: mutant for mutant in MUTANTS}


def loosened(name: str, line: str) -> Any:
    """Return the law of this name as it would be without one line of its module."""
    module = inspect.getmodule(LAWS[name])
    assert module is not None
    source = inspect.getsource(module)
    assert line in source, "the law says it in other words by now"
    names: dict[str, Any] = {"__name__": "loosened"}
    exec(compile(source.replace(line, "pass"), f"{module.__name__} loosened", "exec"), names)
    (cls,) = (each for each in names.values() if inspect.isclass(each) and hasattr(each, name))
    return getattr(cls(), name)


@pytest.mark.parametrize(
    ("mutant", "line"),
    [
        ("ignores the nack delay", "assert stage.clock.monotonic() - before >= delay"),
        ("counts attempts from 0", "assert heard.calls == [(1, 1), (1, 2), (1, 3)]"),
        ("record without the group", "assert first.calls == second.calls == [(1, 1)]"),
        (
            "never renews a lease",
            (
                "assert sorted(books[0].calls + books[1].calls) == "
                "[(number, 1) for number in range(5)]"
            ),
        ),
    ],
)
def test_a_loosened_law_lets_its_mutant_live(mutant: str, line: str) -> None:
    planted = BY_NAME[mutant]
    with harness_of(planted.base) as make:
        strict = try_out(planted.law, LAWS[planted.law], make, planted)
        loose = try_out(planted.law, loosened(planted.law, line), make, planted)
    assert (strict.outcome, loose.outcome) == (Outcome.BROKEN, Outcome.KEPT), loose.words


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_what_it_replaces(mutant: Mutant) -> None:
    right = getattr(mutant.owner, mutant.attribute)
    with mutant.applied():
        wrong = getattr(mutant.owner, mutant.attribute)
        assert wrong is not right
        if inspect.isfunction(right):
            # What returns a coroutine, or None when it has ended, may be an `async def`.
            may_await = "Coroutine" in str(inspect.signature(right).return_annotation)
            if not may_await:
                assert inspect.iscoroutinefunction(wrong) == inspect.iscoroutinefunction(right)
            wanted, offered = (inspect.signature(each).parameters for each in (right, wrong))
            any_words = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
            rest = any(each.kind in any_words for each in offered.values())
            assert rest or list(offered) == list(wanted)
    assert getattr(mutant.owner, mutant.attribute) is right


def test_every_mutant_has_a_name_and_words_of_its_own() -> None:
    assert len(BY_NAME) == len(MUTANTS) >= 28
    assert all(mutant.wrong for mutant in MUTANTS)


def test_a_word_that_chooses_no_mutant_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no such word"]) == 2
    assert capsys.readouterr().err == "no mutant has 'no such word' in its name\n"
