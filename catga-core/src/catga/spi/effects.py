"""What a handler's transaction writes: keys that Catga keeps for its group, and messages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import attrs

from catga.errors import CapabilityError
from catga.spi.delivery import Outgoing

__all__ = ["Command", "EffectKey", "EffectStore", "Effects", "Found"]


Command: TypeAlias = tuple[bytes, ...]
"""The words of one command: its name, a key, and what it takes."""


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
    commands: Sequence[Command] = ()
    """Commands of the broker's own, in this order, after the writes (`Capability.COMMANDS`)."""


class EffectStore(ABC):
    """Reads; only `Subscription.commit` writes."""

    @abstractmethod
    async def read(self, keys: Sequence[EffectKey]) -> list[Found]:
        """Return what stands under each key now. Raises `TransportError` when it cannot tell."""

    def checker(self, namespace: str, type_: str) -> Callable[[Command], None]:
        """Return what is called with each command of one commit, for a message of this type, in
        order: it raises `ConfigurationError` for one that might fail half-way, whose key one step
        cannot reach, or that does not go with those before. Needs `Capability.COMMANDS`."""
        del namespace, type_
        raise CapabilityError("this transport has no commands of its own")

    def own_key(self, namespace: str, type_: str, name: str) -> str:
        """Return a key for `name` that such a commit reaches."""
        del namespace, type_
        raise CapabilityError(f"this transport has no commands of its own (for {name!r})")
