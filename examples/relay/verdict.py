"""The verdict: what the workers wrote down, compared with the input. Catga is not asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import quantiles

import attrs

__all__ = ["Books", "Expected", "QualityRow", "judge", "read_books"]


@attrs.frozen
class Expected:
    """One distinct id that was published."""

    quality: int
    digest: str


@attrs.define
class Books:
    """What all workers wrote down."""

    completions: Counter[str] = attrs.field(factory=Counter)
    altered: set[str] = attrs.field(factory=set)
    ages_us: dict[str, int] = attrs.field(factory=dict)
    at_risk: list[int] = attrs.field(factory=lambda: [0, 0, 0])
    """By quality: what was in the hands of a worker when it was killed, or while the server was
    away."""
    killed: int = 0


@attrs.frozen
class QualityRow:
    """The figures of one quality of service."""

    published: int
    duplicates: int
    handled: int
    lost: int
    repeated: int
    altered: int
    at_risk: int
    p50_ms: float | None
    p99_ms: float | None

    def broken(self, quality: int, *, disturbed: bool) -> list[str]:
        """Say in a line each how the promise of this quality was broken; none when it was kept.

        `disturbed`: a worker or the server was killed. What QoS 0 had under way is lost then, and
        that is allowed; what comes twice is not. QoS 2 may repeat what was at risk: handled, and
        its completion not recorded when the worker or the server died.
        """
        reasons = []
        if self.altered:
            reasons.append(f"{self.altered} of {self.published} altered on the way")
        if self.lost and (quality or not disturbed):
            reasons.append(f"{self.lost} of {self.published} lost")
        allowed = self.at_risk if quality == 2 and disturbed else 0
        if self.repeated > allowed and quality != 1:
            but = f", and at most {allowed} may be" if allowed else ""
            reasons.append(f"{self.repeated} of {self.published} repeated{but}")
        return [f"QoS {quality}: {reason}" for reason in reasons]


def read_books(folder: Path, expected: Mapping[str, Expected]) -> Books:
    """Read every journal; a line cut off by a kill does not count, as its handler did not end."""
    books = Books()
    for journal in sorted(folder.glob("worker-*.journal")):
        for line in journal.read_text().splitlines(keepends=True):
            words = line.split()
            if not line.endswith("\n") or len(words) != 3:
                continue
            id_, digest, age_us = words
            books.completions[id_] += 1
            books.ages_us.setdefault(id_, int(age_us))
            if id_ not in expected or expected[id_].digest != digest:
                books.altered.add(id_)
    for mark in folder.glob("worker-*.killed"):
        for quality, count in enumerate(map(int, mark.read_text().split())):
            books.at_risk[quality] += count
        books.killed += 1
    for risks in folder.glob("worker-*.risks"):
        for line in risks.read_text().splitlines():
            books.at_risk[int(line.split()[1])] += 1
    return books


def judge(
    books: Books, expected: Mapping[str, Expected], duplicates: Sequence[int]
) -> dict[int, QualityRow]:
    """Return the figures per quality of service."""
    rows = {}
    for quality in (0, 1, 2):
        ids = [id_ for id_, one in expected.items() if one.quality == quality]
        done = [id_ for id_ in ids if books.completions[id_]]
        ages = [books.ages_us[id_] / 1000 for id_ in done]
        cuts = quantiles(ages, n=100, method="inclusive") if len(ages) > 1 else ages * 99
        rows[quality] = QualityRow(
            published=len(ids),
            duplicates=duplicates[quality],
            handled=len(done),
            lost=len(ids) - len(done),
            repeated=sum(books.completions[id_] for id_ in done) - len(done),
            altered=sum(1 for id_ in ids if id_ in books.altered),
            at_risk=books.at_risk[quality],
            p50_ms=round(cuts[49], 3) if cuts else None,
            p99_ms=round(cuts[98], 3) if cuts else None,
        )
    return rows
