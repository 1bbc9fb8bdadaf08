"""What happened to a batch: one value per entry, never an exception for the whole batch."""

from __future__ import annotations

from typing import TypeAlias

import attrs
import msgspec

from catga.errors import CatgaError

__all__ = [
    "Ack",
    "Conflict",
    "Done",
    "Drained",
    "Lost",
    "Nack",
    "PublishResult",
    "PublishSummary",
    "Receipt",
    "Refused",
    "Reject",
    "Rejected",
    "SettleResult",
    "Settlement",
    "Unknown",
]


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The message was accepted: at QoS 0 handed over, else stored.

    `sequence` is the broker's own name for the stored copy (opaque; empty at QoS 0), `duplicate`
    says that this id was stored before and this publish stored nothing new.
    """

    message_id: str
    sequence: str = ""
    duplicate: bool = False


@attrs.frozen
class Rejected:
    """Surely not stored. `transient`: trying again can help (no leader, not connected)."""

    error: CatgaError
    transient: bool = False


@attrs.frozen
class Unknown:
    """It may have happened, now or later."""

    error: CatgaError


PublishResult: TypeAlias = Receipt | Rejected | Unknown


@attrs.frozen
class PublishSummary:
    """What became of `publish_many`: counts, and each failure with its position in the input."""

    accepted: int
    duplicates: int
    failures: tuple[tuple[int, CatgaError], ...]


@attrs.frozen
class Ack:
    """Handled: never deliver it to this group again."""


@attrs.frozen
class Nack:
    """Not handled: deliver it again, not before `delay` seconds have passed."""

    delay: float = 0.0


@attrs.frozen
class Reject:
    """Never deliver it again although it was not handled; it was parked before."""

    reason: str = ""


Settlement: TypeAlias = Ack | Nack | Reject


@attrs.frozen
class Done:
    """The settlement or extension took effect."""

    before: bool = attrs.field(default=False, eq=False)
    """Of a commit: it was recorded before, so that nothing of this one was written."""


@attrs.frozen
class Lost:
    """It had no effect: settled before, or another consumer's by now."""


@attrs.frozen
class Conflict:
    """Nothing was written: what the commit had read was changed meanwhile. Read it again."""


@attrs.frozen
class Refused:
    """Nothing was written: something in the commit cannot be carried out, now or later."""

    error: CatgaError


SettleResult: TypeAlias = Done | Lost | Unknown | Conflict | Refused


@attrs.frozen
class Drained:
    """What became of what was in hand when a bus stopped.

    `handled` finished, whether they succeeded or not. `returned` had not begun: others can have
    them at once. `abandoned` were still running at the deadline: they were cancelled and given
    back, and where that could not be done in time, their leases end by themselves; at QoS 0, which
    gives nothing back, they are lost.
    """

    handled: int
    returned: int
    abandoned: int
