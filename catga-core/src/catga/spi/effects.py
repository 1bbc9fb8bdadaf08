"""What a handler's transaction writes: keys that Catga keeps for its group, and messages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import attrs

from catga.spi.delivery import Outgoing

__all__ = ["EffectKey", "EffectStore", "Effects", "Found"]


@attrs.frozen
class EffectKey:
    """One key. Those of another group or type are others, whatever their name."""

    namespace: str
    group: str
    type: str
    name: str


@attrs.frozen
class Found:
    """What stands under a key."""

    value: bytes | None = attrs.field(repr=False)
    """None: nothing."""
    version: str
    """The transport's own word for it, compared when a commit names it."""


@attrs.frozen
class Effects:
    """What one commit compares and writes, all of it or nothing."""

    reads: Mapping[EffectKey, Found]
    """What each key was found to be; it must still have that version."""
    writes: Mapping[EffectKey, bytes | None] = attrs.field(repr=False)
    """What each key becomes; None removes it."""
    outgoing: Sequence[Outgoing] = ()
    """What is published in the same step: to stored subjects, at once, one copy per id within W
    (`Outgoing.qos` above 0). They arrive in this order."""


class EffectStore(ABC):
    """Reads; only `Subscription.commit` writes."""

    @abstractmethod
    async def read(self, keys: Sequence[EffectKey]) -> list[Found]:
        """Return what stands under each key now. Raises `TransportError` when it cannot tell."""
