"""The completion records of consumer groups: what makes a redelivery harmless."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec

from catga.model.outcome import SettleResult
from catga.spi.delivery import Delivery
from catga.spi.effects import Effects

__all__ = ["Commit", "Completion", "InboxStore", "Record"]


class Completion(msgspec.Struct, frozen=True, gc=False):
    """The statement that this group completed this message: the key of a record."""

    namespace: str
    group: str
    type: str
    message_id: str

    @property
    def words(self) -> tuple[str, str, str, str]:
        """Namespace, group, type and message id."""
        return self.namespace, self.group, self.type, self.message_id


class Record(msgspec.Struct, frozen=True, gc=False):
    """A completion, and what is kept with it."""

    key: Completion
    response: bytes | None = None
    """What a request was answered with; never empty."""

    def __repr__(self) -> str:
        return f"Record({self.key!r})"


class Commit(msgspec.Struct, frozen=True, eq=False):
    """What is written in one step when a handler has succeeded."""

    delivery: Delivery
    """To be acknowledged."""
    record: Record
    effects: Effects | None = None
    """Written if, and only if, the record is new (`Capability.ATOMIC`)."""


class InboxStore(ABC):
    """Remembers completions for at least the time D, shared by all members of a group.

    A record is written only after the handler succeeded; there are no claims.
    """

    @abstractmethod
    async def completed(self, keys: Sequence[Completion]) -> list[bool]:
        """Say for each key whether it is recorded. Raises `TransportError` when it cannot tell."""

    @abstractmethod
    async def responses(self, keys: Sequence[Completion]) -> list[bytes | None]:
        """Return the response kept with each record, None where there is no record or it has none.

        Raises `TransportError` when it cannot tell.
        """

    @abstractmethod
    async def record(self, records: Sequence[Record]) -> list[SettleResult]:
        """Write each: `Done` (new, or there before and then unchanged), or `Unknown`. One round
        trip or few."""
