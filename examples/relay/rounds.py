"""The relay many times in a row, over every broker, quietly and while things are killed.

    PYTHONPATH=examples python -m relay.rounds 20 --nats 2.15=nats-server --redis 9=valkey-server

Each round is a program of its own with a private server. Prints one table at the end; the exit
status is 0 when every single round was ok.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
from common import count
from rich.console import Console
from rich.table import Table

__all__ = ["main"]

PROGRAM = Path(__file__).parents[1] / "github_relay.py"
SIZE = ("--workers", "3", "--repeat", "10", "--json")
FATES = ("", "--kill-one", "--kill-one --restart-server")
_REASONS = 10
LONGEST = 600.0
"""Seconds after which a round counts as hanging."""


@attrs.define
class Case:
    """One broker and what happens to it, and what came of its rounds."""

    name: str
    words: Sequence[str]
    rounds: int = 0
    ok: int = 0
    repeated: int = 0
    """At QoS 2, where it was allowed."""
    longest: float = 0.0
    reasons: list[str] = attrs.field(factory=list)

    def run(self) -> None:
        """Run one round more, and note how it went."""
        self.rounds += 1
        began = time.monotonic()
        command = [sys.executable, str(PROGRAM), *self.words, *SIZE]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=LONGEST, check=False
            )
        except subprocess.TimeoutExpired:
            self.reasons.append(f"round {self.rounds} did not end within {LONGEST:g} s")
            return
        self.longest = max(self.longest, time.monotonic() - began)
        lines = done.stdout.splitlines()
        report: dict[str, Any] = json.loads(lines[-1]) if lines else {"ok": False}
        if done.returncode == 0 and report["ok"]:
            self.ok += 1
            self.repeated += report["qos"]["2"]["repeated"]
            return
        # Its reasons, a line each, stand below an empty line that ends its table.
        said = list(itertools.takewhile(str.strip, reversed(done.stderr.splitlines())))
        why = "; ".join(reversed(said[:_REASONS])) or "it said nothing"
        self.reasons.append(f"round {self.rounds}, exit status {done.returncode}: {why}")


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Yield everything that is tried."""
    yield Case("memory", ["--url", "inmemory://"])
    servers = [("nats", each) for each in options.nats] + [
        ("redis", each) for each in options.redis
    ]
    for (kind, server), fate in itertools.product(servers, FATES):
        version, _, binary = server.partition("=")
        words = ["--broker", kind, "--server-binary", binary, *fate.split()]
        yield Case(f"{kind} {version} {fate}".rstrip(), words)


def show(console: Console, tried: Sequence[Case]) -> None:
    """Print the table, and why rounds were not ok."""
    table = Table()
    table.add_column("over")
    for heading in ("rounds", "ok", "QoS 2 repeated, at risk", "longest s"):
        table.add_column(heading, justify="right")
    for case in tried:
        figures = (case.rounds, case.ok, case.repeated, round(case.longest))
        table.add_row(case.name, *map(str, figures), style="" if case.ok == case.rounds else "red")
    console.print(table)
    for case in tried:
        for reason in case.reasons:
            console.print(f"{case.name}: {reason}", markup=False, highlight=False, soft_wrap=True)


def main() -> int:
    """Run it; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("rounds", type=count, nargs="?", default=20)
    for kind in ("nats", "redis"):
        parser.add_argument(
            f"--{kind}", action="append", default=[], metavar="VERSION=FILE", help="a server"
        )
    options = parser.parse_args()
    console = Console()
    tried = list(cases(options))
    try:
        for number, case in itertools.product(range(1, options.rounds + 1), tried):
            case.run()
            state = "ok" if case.ok == case.rounds else "NOT ok"
            console.print(f"{number}/{options.rounds} {case.name}: {state}", highlight=False)
    except KeyboardInterrupt:
        show(console, tried)
        return 130
    show(console, tried)
    return 0 if all(case.ok == case.rounds for case in tried) else 1


if __name__ == "__main__":
    raise SystemExit(main())
