"""Drawing programs: shaped, so that most steps publish and let things be handled.

With every kind of step as likely as any other, faults would crowd out what they are to disturb:
such a machine let three of nine planted faults live. A kind's weight is how often it is named,
and the first step publishes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

from hypothesis import strategies as st

from catga.model.capability import Capability
from catga.testing.harness import Ability
from catga.testing.programs.steps import (
    Again,
    Ask,
    Crash,
    Cut,
    CutAtCompletion,
    CutAtWrite,
    Deed,
    Delay,
    Drain,
    HalfClose,
    Join,
    Later,
    Pass,
    Pause,
    Program,
    Publish,
    Replay,
    Restart,
    Settle,
    Step,
    Together,
)

__all__ = ["programs"]

T = TypeVar("T")

MOST_STEPS = 12
_DEEDS: tuple[Deed, ...] = (
    *("raise", "raise", "retry", "ok", "slow", "hang", "cancel", "reject"),
    *("crash", "crash-after", "crash-after", "late", "late-raise"),
)
_deeds = st.lists(st.sampled_from(_DEEDS), max_size=3).map(tuple)
_answers = st.one_of(
    st.just(()),
    st.sampled_from(("raise", "slow", "crash", "crash-after", "late")).map(lambda deed: (deed,)),
)
_who = st.sampled_from(("publisher", "publisher", "a", "b"))
_group = st.sampled_from(("a", "a", "b"))


def programs(
    qualities: Collection[int] = (0, 1, 2),
    abilities: Collection[Ability] = (),
    able: Collection[Capability] = (Capability.DELAY, Capability.DEAD_LETTERS),
) -> st.SearchStrategy[Program]:
    """Return a strategy for programs that need no more than these."""
    qos = st.sampled_from([each for each in (2, 2, 1, 1, 0) if each in qualities])
    publish = st.builds(Publish, qos, st.one_of(st.just(()), _deeds, _deeds), _deeds)
    again = st.builds(Again, st.integers(0, 3))
    together = st.lists(st.one_of(publish, publish, again), min_size=2, max_size=4)
    some = st.builds(Together, together.map(tuple))
    kinds: list[st.SearchStrategy[Step | tuple[Step, ...]]] = [
        *([publish] * 6),
        *([again] * 2),
        *([some] * 2),
        *([st.just(Settle())] * 3),
        *([st.builds(Pass, st.sampled_from((0.2, 1.0, 2.5)))] * 2),
        *([st.builds(Join, _group)] * 2),
        st.builds(Drain, _group),
        *([_fault(abilities)] * 2),
    ]
    kept = [qos for qos in (2, 1) if qos in qualities]
    if kept:
        kinds.append(st.builds(_repeated, st.sampled_from(kept), _deeds, _deeds))
    if kept and Capability.DELAY in able:
        seconds = st.sampled_from((0.3, 1.0, 2.5))
        kinds += [st.builds(Later, st.sampled_from(kept), _deeds, _deeds, seconds)] * 2
    if Capability.DEAD_LETTERS in able:
        kinds.append(st.builds(Replay, _group))
        if kept:
            kinds.append(st.builds(_replayed, st.sampled_from(kept), _deeds, _group))
    if 2 in qualities:
        kinds += [st.builds(Ask, st.integers(0, 1), _answers)] * 2
    step = _one_in_turn(kinds)
    steps = st.tuples(st.one_of(publish, some), st.lists(step, max_size=MOST_STEPS - 1).map(tuple))
    return st.builds(
        Program,
        steps=steps.map(lambda drawn: (drawn[0], *_flat(drawn[1]))),
        members=st.sampled_from(((1,), (2,), (3,), (1, 1), (2, 1), (1, 0), (0, 1))),
        attempts=st.sampled_from((3, 3, 2, 1)),
        effects=st.sampled_from((True, True, False)) if 2 in qualities else st.just(False),
    )


def _repeated(qos: int, a: tuple[Deed, ...], b: tuple[Deed, ...]) -> tuple[Step, ...]:
    """A message at a quality that may deduplicate, and the same again."""
    return (Publish(qos, a=a, b=b), Again(-1))


def _replayed(qos: int, deeds: tuple[Deed, ...], group: str) -> tuple[Step, ...]:
    """A message that is given up, and its replay: by chance the two would seldom meet."""
    return (Publish(qos, a=("reject", *deeds), b=("reject", *deeds)), Replay(group))


def _flat(drawn: tuple[Step | tuple[Step, ...], ...]) -> tuple[Step, ...]:
    parts = (each if isinstance(each, tuple) else (each,) for each in drawn)
    return tuple(step for part in parts for step in part)


def _fault(abilities: Collection[Ability]) -> st.SearchStrategy[Step]:
    """One kind of step, whatever can be done to the broker."""
    faults: list[st.SearchStrategy[Step]] = [st.builds(Crash, _group)]
    if Ability.RESTART in abilities:
        faults.append(st.just(Restart()))
    if Ability.CUT in abilities:
        when = st.sampled_from(("before", "after"))
        at_write = st.builds(CutAtWrite, _who, st.integers(1, 4), when)
        at_completion = st.builds(CutAtCompletion, _group, when)
        faults += [st.just(Cut()), at_write, at_write, at_completion]
        faults.append(st.builds(Delay, _who, st.sampled_from((0.1, 0.4))))
        faults.append(st.builds(HalfClose, _who, st.sampled_from(("up", "down"))))
    if Ability.PAUSE in abilities:
        faults.append(st.builds(Pause, st.sampled_from((0.5, 2.5))))
    return _one_in_turn(faults)


def _one_in_turn(kinds: Sequence[st.SearchStrategy[T]]) -> st.SearchStrategy[T]:
    """Each as likely as it is often named: for `one_of` a kind that is named six times is one."""
    return st.integers(0, len(kinds) - 1).flatmap(kinds.__getitem__)
