"""What happened while a program ran: plain values in the order of time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Literal, TypeAlias

import attrs

__all__ = [
    "PUBLISHER",
    "Asked",
    "Books",
    "Copy",
    "Disturbance",
    "History",
    "Outcome",
    "Parked",
    "Published",
    "Run",
    "Settled",
]

Outcome: TypeAlias = Literal["accepted", "rejected", "unknown"]
PUBLISHER = -1
"""In the place of a member's number."""


@attrs.define
class Published:
    """One call of publish and what came of it."""

    id: str
    qos: int
    at: float
    live: frozenset[str] = frozenset()
    """The groups that had a member when it was called."""
    outcome: Outcome = "unknown"
    duplicate: bool = False
    due: float = 0.0
    """When it may come at the earliest."""


@attrs.define(eq=False)
class Run:
    """One call of a handler."""

    group: str
    id: str
    qos: int
    member: int
    attempt: int
    deed: str
    start: float
    end: float = math.inf
    """When the handler ended; infinite when it never did."""
    effect: bool = False
    """Whether it did what a handler is there for."""
    intact: bool = True
    """Whether the message held what was published."""
    recorded: bool = False
    """Whether its completion was recorded as it began."""
    word: str = ""
    """What became of the delivery; empty when its member never said."""
    settled: float = math.inf


@attrs.frozen
class Settled:
    """One delivery is off a member's hands: `ack`, `nack`, `dead-letter`, `lost`, `unknown`."""

    group: str
    id: str
    qos: int
    word: str
    at: float


@attrs.frozen
class Parked:
    """One dead letter is stored; `key` is its own id, which says nothing of the message's."""

    group: str
    qos: int
    key: str
    at: float


@attrs.define
class Disturbance:
    """A time in which one member (or everybody, when `member` is None) could not work, and what
    it had in hand could come to others: so it ends a lease after all is well again."""

    kind: str
    start: float
    end: float = math.inf
    member: int | None = None

    def touches(self, run: Run, flight: float = 0.0) -> bool:
        """Say whether it can have kept this run from being settled, where the settlement reached
        the broker at most `flight` seconds after the member was told."""
        concerned = self.member is None or self.member == run.member
        return concerned and self.start <= run.settled + flight and run.start <= self.end


@attrs.frozen
class Copy:
    """One stored copy of a message, as the broker still has it at the end."""

    id: str
    qos: int
    intact: bool = True


@attrs.define
class Asked:
    """One call of request and what came of it."""

    id: str
    last: bool = False
    """Asked once more after everything had come to rest."""
    answer: str | None = None
    error: str = ""


@attrs.frozen
class Books:
    """What the broker has of handlers' effects at the end, by group and message."""

    records: frozenset[tuple[str, str]]
    """Completions."""
    effects: Mapping[tuple[str, str], int] | None
    """How often a run was committed; None: there are no transactions."""
    echoes: Counter[tuple[str, str]]
    """Stored copies of what was published at once."""
    sealed: Counter[tuple[str, str]] | None
    """Stored copies of what commits published."""


@attrs.define
class History:
    """Everything that happened in one program."""

    groups: tuple[str, ...]
    attempts: int = 3
    published: list[Published] = attrs.field(factory=list)
    runs: list[Run] = attrs.field(factory=list)
    disturbances: list[Disturbance] = attrs.field(factory=list)
    drains: int = 0
    """How many members left in order while the program ran: what they give back counts."""
    settled: list[Settled] = attrs.field(factory=list)
    parked: list[Parked] = attrs.field(factory=list)
    copies: list[Copy] = attrs.field(factory=list)
    letters: frozenset[tuple[str, str]] | None = None
    """Group and message of each dead letter that the broker has at the end; None: it cannot say."""
    replayed: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    """How often the letter of a group and message was surely replayed."""
    perhaps_replayed: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    """How often at the most."""
    effects: bool = False
    """Whether handlers at QoS 2 had effects, and published."""
    books: Books | None = None
    asked: list[Asked] = attrs.field(factory=list)
    answering: list[Run] = attrs.field(factory=list)
    """Runs of the handler that answers."""
    backoff: tuple[float, float] = (0.0, 0.0)
    """Base and cap of the pause before another attempt, in seconds of the clock."""
    grain: float = 0.0
    """How far two readings of the clock, one of them the broker's, may be apart, in seconds."""
    flight: float = 0.0
    """How long an acknowledgement that nobody confirms (QoS 1) may be on its way, in seconds."""
    quiet: bool = True
    """Whether it came to rest at the end."""

    def disturbed(self, run: Run) -> bool:
        """Say whether anything can have kept this run from being settled."""
        flight = 0.0 if run.qos == 2 else self.flight
        return any(each.touches(run, flight) for each in self.disturbances)

    def calm(self, id_: str) -> bool:
        """Say whether all that went wrong was over before this id was published."""
        first = min((each.at for each in self.published if each.id == id_), default=-math.inf)
        return all(each.end < first for each in self.disturbances)
