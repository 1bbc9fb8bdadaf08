"""The certificate of `catga verify`: what was shown, what could not be, what is broken."""

from __future__ import annotations

import importlib.metadata
import platform
from collections import Counter
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

from catga.model.qos import QualityOfService
from catga.testing.harness import Law
from catga.testing.verify import Finding, Verdict

__all__ = ["INTERRUPTED", "Certificate", "as_json", "show", "spoken"]

INTERRUPTED = 130
"""The exit status after Ctrl-C."""


@attrs.define(kw_only=True)
class Certificate:
    """What is known of one broker. Nothing in it holds credentials."""

    url: str
    transport: str
    distribution: str
    """The transport's, with its version."""
    server: str
    """With its version; empty when the transport cannot tell."""
    time_scale: float | None
    """None on a manual clock."""
    planned: int = 0
    """How many laws were to be tried."""
    findings: list[Finding] = attrs.field(factory=list)
    seconds: float = 0.0
    stopped: str = ""
    """Why some were not tried."""
    interrupted: bool = False
    left_behind: dict[str, str] = attrs.field(factory=dict)
    """Namespaces that could not be removed, with the reason."""

    @property
    def broken(self) -> list[Finding]:
        """The laws that do not hold."""
        return [each for each in self.findings if each.verdict is Verdict.BROKEN]

    @property
    def counts(self) -> dict[str, int]:
        """How many laws there are of each verdict, and how many were not tried."""
        found = Counter(each.verdict for each in self.findings)
        untried = {"untried": self.planned - len(self.findings)}
        return {verdict.value: found[verdict] for verdict in Verdict} | untried

    @property
    def status(self) -> int:
        """The exit status of the program, when there is something that was shown or is broken."""
        return INTERRUPTED if self.interrupted else int(bool(self.broken))

    @property
    def empty(self) -> bool:
        """Whether it says nothing of the broker: all was tried, and no law is shown or broken."""
        counts = self.counts
        return self.planned == counts[Verdict.NOT_SHOWN] and not self.interrupted

    @property
    def versions(self) -> dict[str, str]:
        """Of everything that takes part."""
        return {
            "catga-core": importlib.metadata.version("catga-core"),
            "transport": self.distribution,
            "server": self.server or "unknown",
            "python": platform.python_version(),
        }


def as_json(certificate: Certificate) -> dict[str, Any]:
    """Return the certificate as one JSON object."""
    counts = certificate.counts
    return {
        "ok": not (certificate.broken or counts["untried"] or certificate.empty),
        "url": certificate.url,
        "transport": certificate.transport,
        "versions": certificate.versions,
        "time_scale": certificate.time_scale,
        "seconds": round(certificate.seconds, 3),
        "counts": counts,
        "interrupted": certificate.interrupted,
        "stopped": certificate.stopped,
        "left_behind": certificate.left_behind,
        "laws": [
            {
                "family": each.family,
                "law": each.law.name,
                "words": each.law.words,
                "qos": None if each.law.qos is None else int(each.law.qos),
                "verdict": each.verdict.value,
                "seconds": round(each.seconds, 3),
                "reason": each.reason,
                "report": each.report,
            }
            for each in certificate.findings
        ],
    }


def show(certificate: Certificate, *, verbose: bool = False) -> None:
    """Write the certificate to standard output; `verbose` adds how each law broke, at length."""
    # No markup: the words of laws and brokers would be read as styles.
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 120  # a file or a pipe has no width to keep to
    versions = certificate.versions
    console.print(
        f"{certificate.url}: {versions['server']} through {certificate.transport} "
        f"({versions['transport']}), catga-core {versions['catga-core']}, "
        f"Python {versions['python']}",
        soft_wrap=True,
    )
    console.print(_table(certificate.findings))
    for each in certificate.broken:
        console.print(f"broken: {each.family}: {spoken(each.law)}: {each.reason}", soft_wrap=True)
        if verbose:
            console.print(each.report, soft_wrap=True)
    for reason, names in _not_shown(certificate.findings).items():
        console.print(f"not shown for want of {reason}:", soft_wrap=True)
        for name in names:
            console.print(f"  {name}", soft_wrap=True)
    for namespace, reason in certificate.left_behind.items():
        console.print(f"left behind: {namespace}: {reason}", soft_wrap=True)
    if certificate.stopped:
        console.print(f"stopped: {certificate.stopped}", soft_wrap=True)
    counted = ", ".join(f"{count} {word}" for word, count in certificate.counts.items())
    console.print(f"{counted}, in {certificate.seconds:.1f} s", soft_wrap=True)


def _table(findings: list[Finding]) -> Table:
    rows: dict[tuple[str, QualityOfService | None], list[Finding]] = {}
    for each in sorted(findings, key=lambda each: -1 if each.law.qos is None else each.law.qos):
        rows.setdefault((each.family, each.law.qos), []).append(each)
    table = Table("family of laws", "QoS")
    for title in (*Verdict, "seconds"):
        table.add_column(str(title), justify="right")
    for family in dict.fromkeys(each.family for each in findings):
        for (name, qos), row in rows.items():
            if name == family:
                counts = Counter(each.verdict for each in row)
                table.add_row(
                    family,
                    "-" if qos is None else str(int(qos)),
                    *(str(counts[verdict] or "") for verdict in Verdict),
                    f"{sum(each.seconds for each in row):.1f}",
                    style="red" if counts[Verdict.BROKEN] else None,
                )
    return table


def _not_shown(findings: list[Finding]) -> dict[str, list[str]]:
    by_reason: dict[str, list[str]] = {}
    for each in findings:
        if each.verdict is Verdict.NOT_SHOWN:
            by_reason.setdefault(each.reason, []).append(f"{each.family}: {spoken(each.law)}")
    return by_reason


def spoken(law: Law) -> str:
    """Return the name of a law as a sentence."""
    return law.name.removeprefix("test_").replace("_", " ")
