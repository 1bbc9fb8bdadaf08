"""What a run leaves behind: every round, medians, and ratios that anyone can recompute."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path as File
from statistics import median
from typing import TypedDict

from benchmarks.paths import PEERS, Path

__all__ = ["Entry", "Round", "entries_of", "entry", "write"]

Round = Mapping[str, Mapping[str, float]]
"""What each contestant reached in one round, by metric."""


class Entry(TypedDict):
    """One path at one size; `ratios` are Catga's median by a peer's."""

    path: str
    metric: str
    size_bytes: int
    catga: float
    peers: dict[str, float | None]
    ratios: dict[str, float | None]
    rounds: list[dict[str, float]]


def entry(path: str, metric: str, size_bytes: int, rounds: Sequence[Mapping[str, float]]) -> Entry:
    """Sum up the rounds; a peer that was not measured is None."""
    catga = median(each["catga"] for each in rounds)
    peers = {peer: _median(rounds, peer) for peer in PEERS}
    return Entry(
        path=path,
        metric=metric,
        size_bytes=size_bytes,
        catga=catga,
        peers=peers,
        ratios={peer: catga / rate if rate else None for peer, rate in peers.items()},
        rounds=[dict(each) for each in rounds],
    )


def _median(rounds: Sequence[Mapping[str, float]], contestant: str) -> float | None:
    figures = [each[contestant] for each in rounds if contestant in each]
    return median(figures) if figures else None


def entries_of(path: Path, size_bytes: int, rounds: Sequence[Round]) -> list[Entry]:
    """Return one entry for each metric of a path, and those beside it out of the same rounds."""
    views = {path.name: {"catga": "catga", **{peer: peer for peer in PEERS}}}
    for added, columns in path.beside.items():
        views[f"{path.name} ({added})"] = {"catga": "catga", **columns}
    for contestant, qos in path.qualities.items():
        views[path.called(qos)] = {"catga": contestant}
    entries = []
    for name, columns in views.items():
        there = {column: who for column, who in columns.items() if who in rounds[0]}
        if "catga" not in there:
            continue
        for metric in rounds[0][there["catga"]]:
            picked = [
                {column: each[who][metric] for column, who in there.items()} for each in rounds
            ]
            entries.append(entry(name, metric, size_bytes, picked))
    return entries


def write(folder: File, entries: Sequence[Entry], table: str) -> None:
    """Write `latest.json` and `latest.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latest.json").write_text(json.dumps(entries, indent=1) + "\n")
    (folder / "latest.md").write_text(table)
