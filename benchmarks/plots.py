"""The report in pictures (SVG). Needs matplotlib, which is installed for the benchmark only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as File
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt

from benchmarks.paths import BROKERS, PEERS
from benchmarks.report import Entry

__all__ = ["draw"]

COLUMNS = ("catga", *PEERS)
PERCENTILES = (50, 75, 90, 95, 99)


def draw(folder: File, entries: Sequence[Entry], note: str) -> list[File]:
    """Write the pictures there can be; return where they are."""
    mpl.rcParams["svg.hashsalt"] = "catga"
    drawn = []
    for broker in (*BROKERS, "memory"):
        drawn += _bars(folder, [each for each in entries if _is_rate(each, broker)], broker, note)
        drawn += _latency(folder, entries, broker, note)
    for what in ("backlog", "window", "subscriptions", "inbox"):
        drawn += _growth(folder, entries, what, note)
    return drawn


def _is_rate(each: Entry, broker: str) -> bool:
    rate = each["metric"] == "messages_per_second" and each["path"].startswith(broker)
    return rate and each["size_bytes"] == 128 and " growth " not in each["path"]


def _value(each: Entry, column: str) -> float | None:
    return each["catga"] if column == "catga" else each["peers"][column]


def _bars(folder: File, entries: Sequence[Entry], broker: str, note: str) -> list[File]:
    if not entries:
        return []
    figure, axes = plt.subplots(figsize=(10, 1.5 + 0.75 * len(entries)))
    for place, column in enumerate(COLUMNS):
        found = [(row, _value(each, column)) for row, each in enumerate(entries)]
        rows = [row + (place - 2) * 0.16 for row, value in found if value is not None]
        axes.barh(rows, [value for _, value in found if value is not None], 0.15, label=column)
    axes.set_yticks(range(len(entries)), [each["path"] for each in entries])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(f"messages per second, 128 bytes (logarithmic)\n{note}", fontsize=7)
    axes.legend(fontsize=8)
    return [_save(figure, folder / f"throughput-{broker}.svg")]


def _latency(folder: File, entries: Sequence[Entry], broker: str, note: str) -> list[File]:
    chosen = [
        each
        for each in entries
        if each["path"].startswith(broker)
        and each["metric"].startswith("latency")
        and each["size_bytes"] == 128
    ]
    paths = list(dict.fromkeys(each["path"] for each in chosen))
    if not paths:
        return []
    figure, places = plt.subplots(1, len(paths), figsize=(5 * len(paths), 4), squeeze=False)
    for axes, path in zip(places[0], paths, strict=True):
        by_metric = {each["metric"]: each for each in chosen if each["path"] == path}
        for column in COLUMNS:
            points = [
                (each, value)
                for each in PERCENTILES
                if (found := by_metric.get(f"latency_p{each}_microseconds"))
                and (value := _value(found, column)) is not None
            ]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", label=column)
        axes.set_title(path, fontsize=9)
        axes.set_xlabel(f"percentile\n{note}", fontsize=6)
        axes.set_ylabel("µs")
        axes.legend(fontsize=8)
    return [_save(figure, folder / f"latency-{broker}.svg")]


def _growth(folder: File, entries: Sequence[Entry], what: str, note: str) -> list[File]:
    chosen = [each for each in entries if f" growth {what} " in each["path"]]
    metrics = list(dict.fromkeys(each["metric"] for each in chosen))
    if not metrics:
        return []
    figure, places = plt.subplots(1, len(metrics), figsize=(5 * len(metrics), 4), squeeze=False)
    for axes, metric in zip(places[0], metrics, strict=True):
        for broker in BROKERS:
            points = [
                (int(each["path"].split()[-1]), each["catga"])
                for each in chosen
                if each["metric"] == metric and each["path"].startswith(broker)
            ]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", label=broker)
        axes.set_xscale("symlog")
        axes.set_ylim(bottom=0)
        axes.set_title(metric.replace("_", " "), fontsize=9)
        axes.set_xlabel(f"{what}\n{note}", fontsize=6)
        axes.legend(fontsize=8)
    return [_save(figure, folder / f"growth-{what}.svg")]


def _save(figure: Any, path: File) -> File:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path
