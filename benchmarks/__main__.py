"""Measure Catga beside other clients: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path as File

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from benchmarks.growth import GROWTHS, Growth
from benchmarks.measure import RATE, Failed, Figures, Laboratory
from benchmarks.paths import PATHS, Path
from benchmarks.processes import FOREIGN, ROOT, Team
from benchmarks.report import Entry, entries_of, write
from benchmarks.table import machine, markdown

SIZES = (128, 1024)
SHORT = 600
"""Messages of a run that is not timed; more than any contestant takes at once."""
TRIAL = 1000
"""Messages of the first turn, which tells how many a timed one takes."""
FEWEST, MOST = 1_000, 200_000
FEWEST_AWAITED = 200
"""Where one message at a time is under way, also in the first turn."""
LATENCY_SECONDS = 0.75


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=_count, default=5, metavar="N", help="default: 5")
    parser.add_argument(
        "--seconds", type=float, default=0.3, metavar="S", help="about so long each (default: 0.3)"
    )
    parser.add_argument("--sizes", type=_count, nargs="+", default=SIZES, metavar="BYTES")
    parser.add_argument(
        "--only",
        action="append",
        metavar="WORDS",
        help="paths that contain them, as `nats qos1`; may be given several times",
    )
    for name in FOREIGN:
        parser.add_argument(
            f"--{name}", metavar="PYTHON", help="interpreter of an environment that has it"
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


class Run:
    """One run over all paths that are wanted; a path that fails is noted, the others go on."""

    def __init__(self, options: argparse.Namespace, bar: Progress) -> None:
        self._options = options
        self._bar = bar
        # Not resolved: the link in an environment is what makes it one.
        interpreters = {name: getattr(options, name) for name in FOREIGN}
        self.environments = {
            name: str(File(python).absolute()) for name, python in interpreters.items() if python
        }
        self._laboratory = Laboratory(self.environments)
        self._idle: list[Team] = []
        self._teams = contextlib.ExitStack()
        self.entries: list[Entry] = []
        self.missing: dict[str, str] = {}

    def all(self) -> int:
        """Measure everything that is wanted; return how many paths that were."""
        works: list[tuple[str, Callable[[TaskID], list[Entry]]]] = []
        works += [(path.name, self._measuring(path)) for path in PATHS if self._wants(path.name)]
        works += [(each.name, self._growing(each)) for each in GROWTHS if self._wants(each.name)]
        total = self._bar.add_task("all paths", total=len(works))

        def work(index: int) -> list[Entry]:
            name, act = works[index]
            task = self._bar.add_task(name, total=None)
            try:
                return act(task)
            except Exception as failure:  # its own affair: the other paths are measured
                self.missing[name] = f"{type(failure).__name__}: {failure}".strip()
                return []
            finally:
                self._bar.remove_task(task)
                self._bar.advance(total)

        # What is not timed may run side by side.
        with self._teams, ThreadPoolExecutor(3 if self._options.short else 1) as pool:
            try:
                for entries in pool.map(work, range(len(works))):
                    self.entries += entries
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return len(works)

    @contextlib.contextmanager
    def _team(self) -> Iterator[Team]:
        """Yield processes for one path: new ones where time is taken, else those that are there."""
        if not self._options.short:
            with self._laboratory.team() as team:
                yield team
            return
        team = self._idle.pop() if self._idle else self._laboratory.team()
        self._teams.enter_context(team)  # ended again with the run; twice does no harm
        yield team
        self._idle.append(team)

    def _wants(self, name: str) -> bool:
        only = self._options.only
        return not only or any(words in name for words in only)

    def _growing(self, growth: Growth) -> Callable[[TaskID], list[Entry]]:
        rounds = 1 if self._options.short else self._options.rounds

        def act(_: TaskID) -> list[Entry]:
            return growth.entries(self._laboratory, rounds, short=self._options.short)

        return act

    def _measuring(self, path: Path) -> Callable[[TaskID], list[Entry]]:
        def act(task: TaskID) -> list[Entry]:
            names = self._laboratory.contestants(path)
            sizes = self._options.sizes[: 1 if self._options.short else None]
            turns = 1 if self._options.short else 1 + self._options.rounds * len(sizes)
            self._bar.update(task, total=len(names) * turns)
            with self._team() as team:
                return self._rounds(team, path, names, sizes, task)

        return act

    def _rounds(
        self, team: Team, path: Path, names: list[str], sizes: Sequence[int], task: TaskID
    ) -> list[Entry]:
        """Let everybody have a turn in each round; who fails once has no figures."""

        def turn(name: str, size: int, count: int) -> Figures | None:
            self._bar.advance(task)
            try:
                return self._laboratory.turn(team, path, name, size, count)
            except (Failed, ValueError, KeyError) as failure:
                self.missing[f"{path.name}, {name}"] = str(failure)
                names.remove(name)
                return None

        short, paced = self._options.short, path.role == "paced"
        fewest = FEWEST_AWAITED if path.awaited else FEWEST
        trial = 40 if paced else FEWEST_AWAITED if path.awaited else SHORT if short else TRIAL
        trials = {name: figures for name in [*names] if (figures := turn(name, sizes[0], trial))}
        if short:
            return entries_of(path, sizes[0], [trials]) if trials else []
        counts = {
            name: int(200 * LATENCY_SECONDS)
            if paced
            else min(MOST, max(fewest, int(figures[RATE] * self._options.seconds)))
            for name, figures in trials.items()
        }
        entries: list[Entry] = []
        for size in sizes:
            rounds = [
                {name: got for name in [*names] if (got := turn(name, size, counts[name]))}
                for _ in range(self._options.rounds)
            ]
            kept = [{name: each[name] for name in names if name in each} for each in rounds]
            entries += entries_of(path, size, kept)
        return entries


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure all paths; 0 when every contestant came through."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as bar:
        this = Run(options, bar)
        works = this.all()
    if not works:
        console.print("no path is called like that")
        return 1
    with _folder(options) as folder:
        table = markdown(this.entries, this.missing, _peers(this.environments))
        write(folder, this.entries, table)
        undrawn = _draw(folder, this.entries)
    for name, reason in this.missing.items():
        console.print(f"{name}: {reason}", style="red", markup=False)
    if undrawn:
        console.print(undrawn, style="red", markup=False)
    if options.short:
        console.print(f"{works} paths tried, {len(this.missing)} failures", markup=False)
    else:
        console.print(f"written to {options.output}", markup=False)
    return 1 if this.missing or undrawn else 0


@contextlib.contextmanager
def _folder(options: argparse.Namespace) -> Iterator[File]:
    """Yield where the report goes; that of a run which was not timed goes nowhere."""
    if not options.short:
        yield options.output
        return
    with tempfile.TemporaryDirectory() as folder:
        yield File(folder)


def _draw(folder: File, entries: Sequence[Entry]) -> str:
    """Draw the pictures; return why that failed: the figures are worth more."""
    if importlib.util.find_spec("matplotlib") is None:
        print("no pictures: matplotlib is not installed", file=sys.stderr)
        return ""
    try:
        from benchmarks.plots import draw  # noqa: PLC0415 - needs what only a full run has

        draw(folder, entries, machine())
    except Exception as error:
        return f"pictures: {type(error).__name__}: {error}"
    return ""


def _peers(environments: dict[str, str]) -> list[str]:
    ask = (
        "import sys; from importlib.metadata import distributions as all; print(', '.join(sorted("
        "{f'{d.name} {d.version}' for d in all() if d.name.startswith(sys.argv[1])})))"
    )
    return [
        subprocess.run(
            [python, "-c", ask, name], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name, python in environments.items()
    ]


def main() -> int:
    """Measure, or list what is measured."""
    options = arguments()
    if options.list:
        print("\n".join([*(each.name for each in PATHS), *(each.name for each in GROWTHS)]))
        return 0
    console = Console(stderr=True)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return run(options, console)
    except KeyboardInterrupt:
        console.print("interrupted: servers and processes are ended, nothing is written")
        return 130


if __name__ == "__main__":
    sys.exit(main())
