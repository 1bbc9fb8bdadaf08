"""Print the kill table. `python -m mutants [-v] [word ...]`; status 1 when a mutant survives.

Words choose the mutants whose name holds one of them, or whose base is one; `-v` lists every law
that kills. Status 2 when they choose none.
Writes nothing.
"""

from __future__ import annotations

import sys
import time

from mutants.bench import Outcome
from mutants.mutation import MUTANTS
from mutants.table import Row, kill_table, show


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main(words: list[str]) -> int:
    """Try everything out, say what came of it, return the exit status."""
    chosen = [word for word in words if word != "-v"]
    wanted = [
        mutant
        for mutant in MUTANTS
        if not chosen
        or any(word in (mutant.name, mutant.base) or word in mutant.name for word in chosen)
    ]
    if not wanted:
        sys.stderr.write(f"no mutant has {' or '.join(map(repr, chosen))} in its name\n")
        return 2
    began, rows, bad = time.monotonic(), [], 0
    for entry in kill_table(wanted):
        if isinstance(entry, Row):
            rows.append(entry)
            sys.stderr.write("." if not entry.survives else "S")
            sys.stderr.flush()
            continue
        base, trials = entry
        for trial in trials:
            if trial.outcome in {Outcome.BROKEN, Outcome.STILLBORN}:
                bad += 1
                _say(f"{base}, as it is, breaks {trial.law}: {trial.words}")
    sys.stderr.write("\n")
    for line in show(rows, everything="-v" in words):
        _say(line)
    survivors = sum(bool(row.survives) for row in rows)
    _say(
        f"{len(rows)} mutants, {survivors} survive; {bad} laws are broken by what is right; "
        f"{time.monotonic() - began:.0f} s"
    )
    return 1 if survivors or bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
