"""Measure Catga beside other clients: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path as File

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.measure import ROOT, Failed, Laboratory
from benchmarks.paths import PATHS, Path
from benchmarks.report import Entry, entry, markdown, write

METRIC = "messages_per_second"
SIZES = (128, 1024)
SHORT = 2000
"""Messages of a run that is not timed; more than any contestant takes at once."""
FEWEST, MOST = 5_000, 300_000


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=_count, default=5, metavar="N", help="default: 5")
    parser.add_argument(
        "--seconds", type=float, default=1.5, metavar="S", help="about so long each (default: 1.5)"
    )
    parser.add_argument("--sizes", type=_count, nargs="+", default=SIZES, metavar="BYTES")
    parser.add_argument(
        "--only", default="", metavar="WORDS", help="paths that contain them, as `nats qos1`"
    )
    parser.add_argument(
        "--faststream", metavar="PYTHON", help="interpreter of an environment with FastStream"
    )
    parser.add_argument(
        "--output", type=File, default=ROOT / "docs" / "performance", metavar="FOLDER"
    )
    parser.add_argument(
        "--short", action="store_true", help="show only that each path runs; writes no figures"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the paths")
    return parser.parse_args(words)


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def measure(
    laboratory: Laboratory, path: Path, size: int, options: argparse.Namespace, bar: Progress
) -> Entry:
    """Measure everybody in turn, round by round. Raises `Failed`."""
    names = laboratory.contestants(path)
    task = bar.add_task(f"{path.name}, {size} B", total=len(names) * (1 + options.rounds))
    counts = {}
    for name in names:  # how many each can do in the time; not timed itself
        rate = laboratory.rate(path, name, size, SHORT)
        counts[name] = min(MOST, max(FEWEST, int(rate * options.seconds)))
        bar.advance(task)
    rounds = []
    for _ in range(options.rounds):
        rates = {}
        for name in names:
            rates[name] = laboratory.rate(path, name, size, counts[name])
            bar.advance(task)
        rounds.append(rates)
    return entry(path.name, METRIC, size, rounds)


def try_out(laboratory: Laboratory, path: Path, bar: Progress) -> None:
    """Run everybody once. Raises `Failed`."""
    names = laboratory.contestants(path)
    task = bar.add_task(path.name, total=len(names))
    for name in names:
        laboratory.rate(path, name, SIZES[0], SHORT)
        bar.advance(task)


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure all paths; 0 when every contestant came through."""
    # Not resolved: the link in an environment is what makes it one.
    laboratory = Laboratory(options.faststream and str(File(options.faststream).absolute()))
    paths = [path for path in PATHS if options.only in path.name]
    entries: list[Entry] = []
    missing: dict[str, str] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as bar:
        for path in paths:
            for size in options.sizes[: 1 if options.short else None]:
                try:
                    if options.short:
                        try_out(laboratory, path, bar)
                    else:
                        entries.append(measure(laboratory, path, size, options, bar))
                except Failed as failure:
                    missing[f"{path.name}, {size} B"] = str(failure)
    for name, reason in missing.items():
        console.print(f"{name}: {reason}", style="red", markup=False)
    if entries:
        table = markdown(entries, missing, _peers(options.faststream))
        write(options.output, entries, table)
        console.print(table, markup=False, soft_wrap=True)
    elif not missing:
        console.print(f"{len(paths)} paths run" if paths else "no path is called like that")
    return 1 if missing or not paths else 0


def _peers(faststream: str | None) -> list[str]:
    if faststream is None:
        return []
    ask = "from importlib.metadata import version; print('faststream', version('faststream'))"
    told = subprocess.run([faststream, "-c", ask], capture_output=True, text=True, check=True)
    return [told.stdout.strip()]


def main() -> int:
    """Measure, or list what is measured."""
    options = arguments()
    if options.list:
        print("\n".join(path.name for path in PATHS))
        return 0
    console = Console(stderr=True)
    try:
        return run(options, console)
    except KeyboardInterrupt:
        console.print("interrupted: servers and processes are ended, nothing is written")
        return 130


if __name__ == "__main__":
    sys.exit(main())
