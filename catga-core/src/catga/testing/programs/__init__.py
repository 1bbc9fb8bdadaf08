"""Whole programs against a transport: drawn or written as values, executed, judged by laws.

Needs Hypothesis and pytest (`catga-core[testing]`). A plugin's author derives one class from
`ProgramContract`; what a run found is kept as a test of its own with `keep_the_laws`.
"""

from catga.testing.programs.contract import ProgramContract
from catga.testing.programs.play import keep_the_laws
from catga.testing.programs.steps import (
    Again,
    Ask,
    Crash,
    Cut,
    CutAtCompletion,
    CutAtWrite,
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
    Together,
)

__all__ = [
    "Again",
    "Ask",
    "Crash",
    "Cut",
    "CutAtCompletion",
    "CutAtWrite",
    "Delay",
    "Drain",
    "HalfClose",
    "Join",
    "Later",
    "Pass",
    "Pause",
    "Program",
    "ProgramContract",
    "Publish",
    "Replay",
    "Restart",
    "Settle",
    "Together",
    "keep_the_laws",
]
