"""Looking after dead letters: what a group gave up on, as the broker keeps it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import attrs

from catga.model.outcome import SettleResult
from catga.model.subject import Subject

__all__ = ["DeadLetterStore", "StoredLetter"]


@attrs.frozen
class StoredLetter:
    """One dead letter where it is stored."""

    subject: Subject
    """Of kind `DEAD`: it names the group and the type."""
    sequence: str
    """The broker's own name for it, unique within its subject."""
    body: bytes = attrs.field(repr=False)
    """The CloudEvent that was parked."""


class DeadLetterStore(ABC):
    """Reads and removes. Parking is a publish; replaying is one too, and then a removal."""

    @abstractmethod
    async def subjects(self, namespace: str) -> dict[Subject, int]:
        """Return the dead-letter subjects of a namespace that hold any, each with how many."""

    @abstractmethod
    async def read(self, subject: Subject, after: str = "", limit: int = 100) -> list[StoredLetter]:
        """Return up to `limit` letters of one subject, the oldest first, from behind `after`.

        None when there are no more. Raises `TransportError` when it cannot tell.
        """

    @abstractmethod
    async def remove(self, letters: Sequence[StoredLetter]) -> list[SettleResult]:
        """Remove each for good: `Done`, `Lost` when it was gone before, or `Unknown`."""
