"""What Catga costs as things grow: the backlog, the subscriptions, the inbox; and its memory."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.job import Job
from benchmarks.measure import Laboratory, server
from benchmarks.paths import BROKERS
from benchmarks.processes import Failed
from benchmarks.report import Entry, entry

__all__ = ["GROWTHS", "Growth"]

MODULE = "catga_growth"
Rounds = dict[int, list[dict[str, float]]]
"""By how much there is: each round's figures by metric."""


@dataclasses.dataclass(frozen=True)
class Growth:
    """One thing that grows, on one broker."""

    broker: str
    what: str
    qos: int
    measure: Callable[[Laboratory, str, Growth, int, bool], Rounds]

    @property
    def name(self) -> str:
        """As the report calls it."""
        return f"{self.broker} qos{self.qos} growth {self.what}"

    def entries(self, laboratory: Laboratory, rounds: int, *, short: bool) -> list[Entry]:
        """Measure it. Raises `Failed`."""
        with server(self.broker) as url:
            found = self.measure(laboratory, url, self, rounds, short)
        return [
            entry(f"{self.name} {size}", metric, 128, [{"catga": one[metric]} for one in figures])
            for size, figures in found.items()
            for metric in figures[0]
        ]


def _ask(laboratory: Laboratory, role: str, job: Job) -> dict[str, Any]:
    """Let a new process play: what it holds in memory is its own."""
    with dataclasses.replace(laboratory, deadline=300.0).team() as team:
        child = team.child(MODULE, "first")
        child.ask(role, job)
        return child.figures()


def _costs(figures: dict[str, Any], *metrics: str) -> dict[str, float]:
    if figures["timed"] <= 0:
        raise Failed("too few messages to be timed")
    costs = {
        "microseconds_per_message": figures["seconds"] / figures["timed"] * 1e6,
        "cpu_microseconds_per_message": figures["cpu"] / figures["timed"] * 1e6,
    }
    return costs | {metric: figures[metric] for metric in metrics}


def _backlog(laboratory: Laboratory, url: str, growth: Growth, rounds: int, short: bool) -> Rounds:
    """A new group each time, so that the backlog is whole; of it the first 20 000 are handled."""
    found: Rounds = {}
    sizes = (100, 1000) if short else (1000, 10_000, 100_000, 1_000_000)
    for size in sizes:  # grows from one to the next
        seed = size - max(found, default=0)
        _ask(laboratory, "seed", Job(url, growth.qos, 128, seed))
        found[size] = []
        for number in range(rounds):
            job = Job(url, growth.qos, 128, min(size, 20_000), group=f"at-{size}-{number}")
            found[size].append(_costs(_ask(laboratory, "part", job), "peak_rss_mebibytes"))
    return found


def _window(laboratory: Laboratory, url: str, growth: Growth, rounds: int, short: bool) -> Rounds:
    count = 1000 if short else 40_000
    sizes = (100, 500) if short else (100, 500, 2000, 10_000)
    _ask(laboratory, "seed", Job(url, growth.qos, 128, count))
    found: Rounds = {size: [] for size in sizes}
    for number in range(rounds):
        for size in sizes:
            group = f"of-{size}-{number}"
            job = Job(url, growth.qos, 128, count // 2, group=group, prefetch=size)
            found[size].append(_costs(_ask(laboratory, "part", job), "peak_rss_mebibytes"))
    return found


def _subscriptions(
    laboratory: Laboratory, url: str, growth: Growth, rounds: int, short: bool
) -> Rounds:
    sizes = (1, 10) if short else (1, 10, 100, 1000)
    found: Rounds = {size: [] for size in sizes}
    for number in range(rounds):
        for size in sizes:
            count = 1000 if short else 20_000
            job = Job(url, growth.qos, 128, count, types=size, group=f"many-{size}-{number}")
            figures = _ask(laboratory, "many", job)
            found[size].append(_costs(figures, "start_seconds", "peak_rss_mebibytes"))
    return found


def _inbox(laboratory: Laboratory, url: str, growth: Growth, rounds: int, short: bool) -> Rounds:
    """One consumer goes through all; the rounds at a mark are the steps that follow it."""
    step, marks = (100, (0, 1000)) if short else (10_000, (0, 100_000, 1_000_000))
    count = marks[-1] + (rounds + 1) * step
    job = Job(url, growth.qos, 128, count, step=step)
    _ask(laboratory, "seed", job)
    laps = _ask(laboratory, "part", job)["laps"]
    found: Rounds = {}
    for mark in marks:
        first = max(0, mark // step - 1)
        found[mark] = list(_steps(laps[first : first + rounds + 1], step))
    return found


def _steps(laps: Sequence[Sequence[float]], step: int) -> Iterator[dict[str, float]]:
    for (began, used), (ended, more) in itertools.pairwise(laps):
        yield {
            "microseconds_per_message": (ended - began) / step * 1e6,
            "cpu_microseconds_per_message": (more - used) / step * 1e6,
        }


GROWTHS = tuple(
    Growth(broker, what, qos, measure)
    for broker in BROKERS
    for what, qos, measure in (
        ("backlog", 1, _backlog),
        ("window", 1, _window),
        ("subscriptions", 1, _subscriptions),
        ("inbox", 2, _inbox),
    )
)
