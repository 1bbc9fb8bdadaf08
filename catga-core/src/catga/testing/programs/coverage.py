"""Counting what programs really exercised: a run that silently stopped doing so fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import get_args

import attrs

from catga.model.capability import Capability
from catga.testing.harness import Ability
from catga.testing.programs.history import History
from catga.testing.programs.steps import Fault, Program, Step, Together

__all__ = ["Coverage"]

_LEAST: Mapping[str, float] = {
    "Publish": 0.6,
    "Again": 0.2,
    "Together": 0.1,
    "Join": 0.05,
    "Drain": 0.025,
    "Crash": 0.02,
    "Pass": 0.05,
    "Settle": 0.08,
    "ok": 0.7,
    "accepted": 0.8,
}
"""Per program: some fifth of what is drawn and comes of it (in 1 000 programs in memory)."""
_STORED: Mapping[str, float] = {
    "raise": 0.1,
    "retry": 0.05,
    "slow": 0.05,
    "hang": 0.05,
    "cancel": 0.05,
    "reject": 0.08,
    "crash": 0.05,
    "crash-after": 0.1,
    "late": 0.05,
    "late-raise": 0.05,
    "ack": 0.65,
    "nack": 0.1,
    "dead-letter": 0.1,
    "lost": 0.1,
}
"""Where there is more than one attempt: of what handlers do in it QoS 0 sees a half."""
_MORE: Mapping[Ability | Capability, Mapping[str, float]] = {
    Capability.AT_LEAST_ONCE: _STORED,
    Capability.EXACTLY_ONCE: {
        **_STORED,
        "duplicate": 0.1,
        "Ask": 0.08,
        "answered": 0.07,
        "answered again": 0.05,
        "completed": 0.2,
        "derived": 0.3,
    },
    Capability.DELAY: {"Later": 0.05},
    Capability.DEAD_LETTERS: {"Replay": 0.05, "replayed": 0.02},
    Ability.RESTART: {"Restart": 0.01},
    Ability.CUT: {
        "Cut": 0.01,
        "CutAtWrite": 0.005,
        "CutAtCompletion": 0.002,
        "Delay": 0.01,
        "HalfClose": 0.01,
    },
    Ability.PAUSE: {"Pause": 0.01},
}
_HAPPENS = frozenset({"stall", *(kind.__name__ for kind in get_args(Fault))})


_FEW = 200
"""Below, half of it is enough: what is drawn repeats itself, so that in 30 programs a kind was
seen between not at all and three times as often as on the average (25 seeds)."""


@attrs.define
class Coverage:
    """How often each kind of step was taken, each fault happened, and each outcome came of it."""

    programs: int = 0
    counts: Counter[str] = attrs.field(factory=Counter)

    def add(self, program: Program, history: History) -> None:
        """Count one program that was executed."""
        self.programs += 1
        self.counts.update(_kinds(program.steps))
        self.counts.update(run.deed for run in history.runs)
        self.counts.update(each.word for each in history.settled if each.qos)
        self.counts.update(each.outcome for each in history.published)
        self.counts["duplicate"] += sum(each.duplicate for each in history.published)
        self.counts["replayed"] += history.replayed.total()
        answered = [each for each in history.asked if each.answer is not None]
        self.counts["answered"] += sum(not each.last for each in answered)
        self.counts["answered again"] += sum(each.last for each in answered)
        if history.books is not None:
            effects = history.books.effects  # None: this broker has no transactions
            done = len(history.books.records) if effects is None else sum(effects.values())
            self.counts["completed"] += done
            self.counts["derived"] += history.books.echoes.total()
        self.counts.update(each.kind for each in history.disturbances if each.kind in _HAPPENS)

    def lacking(
        self, abilities: Collection[Ability | Capability] = ()
    ) -> Mapping[str, tuple[int, int]]:
        """Return what came too seldom: how often, and how often it had to."""
        least = dict(_LEAST)
        for ability, more in _MORE.items():
            if ability in abilities:
                least |= more
        expected = self.programs if self.programs >= _FEW else self.programs / 2
        return {
            kind: (self.counts[kind], wanted)
            for kind, rate in least.items()
            if self.counts[kind] < (wanted := int(expected * rate))
        }


def _kinds(steps: Iterable[Step]) -> Iterable[str]:
    for step in steps:
        if not isinstance(step, Fault):  # a fault counts when it has happened
            yield type(step).__name__
        if isinstance(step, Together):
            yield from _kinds(step.steps)
