"""Counting what programs really exercised: a run that silently stopped doing so fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import attrs

from catga.model.capability import Capability
from catga.testing.harness import Ability
from catga.testing.programs.history import History
from catga.testing.programs.steps import Program, Step, Together

__all__ = ["Coverage"]

_LEAST: Mapping[str, float] = {
    "Publish": 1.0,
    "Again": 0.2,
    "Together": 0.1,
    "Join": 0.1,
    "Drain": 0.05,
    "Crash": 0.02,
    "Pass": 0.1,
    "Settle": 0.1,
    "ok": 1.0,
    "raise": 0.1,
    "retry": 0.03,
    "slow": 0.03,
    "hang": 0.03,
    "cancel": 0.03,
    "reject": 0.03,
    "crash": 0.03,
    "crash-after": 0.03,
    "late": 0.03,
    "late-raise": 0.03,
    "accepted": 1.0,
    "duplicate": 0.1,
    "ack": 1.0,
    "nack": 0.1,
    "dead-letter": 0.1,
    "lost": 0.02,
    "Ask": 0.1,
    "answered": 0.1,
    "answered again": 0.1,
    "completed": 0.2,
    "derived": 0.2,
}
"""Per program: some fifth of what is drawn and comes of it."""
_MORE: Mapping[Ability | Capability, Mapping[str, float]] = {
    Capability.DELAY: {"Later": 0.1},
    Capability.DEAD_LETTERS: {"Replay": 0.1, "replayed": 0.03},
    Ability.RESTART: {"Restart": 0.01},
    Ability.CUT: {"Cut": 0.01, "CutAtWrite": 0.02},
}


@attrs.define
class Coverage:
    """How often each kind of step was taken, and each outcome came of it."""

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
        self.counts.update(each.kind for each in history.disturbances if each.kind == "stall")

    def lacking(
        self, abilities: Collection[Ability | Capability] = ()
    ) -> Mapping[str, tuple[int, int]]:
        """Return what came too seldom: how often, and how often it had to."""
        least = dict(_LEAST)
        for ability, more in _MORE.items():
            if ability in abilities:
                least |= more
        return {
            kind: (self.counts[kind], wanted)
            for kind, rate in least.items()
            if self.counts[kind] < (wanted := int(self.programs * rate))
        }


def _kinds(steps: Iterable[Step]) -> Iterable[str]:
    for step in steps:
        yield type(step).__name__
        if isinstance(step, Together):
            yield from _kinds(step.steps)
