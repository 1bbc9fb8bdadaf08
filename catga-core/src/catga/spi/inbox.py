"""The completion records of consumer groups: what makes a redelivery harmless."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import attrs

from catga.model.outcome import SettleResult

__all__ = ["Completion", "InboxStore"]


@attrs.frozen
class Completion:
    """The statement that this group completed this message: the key of a record."""

    namespace: str
    group: str
    type: str
    message_id: str


class InboxStore(ABC):
    """Remembers completions for at least the time D, shared by all members of a group.

    A record is written only after the handler succeeded; there are no claims.
    """

    @abstractmethod
    async def completed(self, keys: Sequence[Completion]) -> list[bool]:
        """Say for each key whether it is recorded. Raises `TransportError` when it cannot tell."""

    @abstractmethod
    async def record(self, keys: Sequence[Completion]) -> list[SettleResult]:
        """Record each key: `Done` (new or there before), or `Unknown`. One round trip or few."""
