"""The nodes of one namespace on the broker: what a transport does for discovery.

The transport stores records under leases and reads them all at once. What is the same on every
broker is the core's: heartbeats, watching, and making changes out of what was read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

import attrs

from catga.model.node import Node, NodeRecord

__all__ = ["NodeStore", "Sighting", "Snapshot"]


@attrs.frozen
class Sighting:
    """One node that is there."""

    node: Node
    """With `last_seen` by the broker's clock."""
    owner: str
    expires_in: float
    """Seconds of its lease that are left, by the broker's clock; always above 0."""


@attrs.frozen
class Snapshot:
    """All nodes of a namespace at one moment."""

    present: Mapping[str, Sighting]
    """By id. No node whose lease has ended is among them, even if the broker still stores it."""
    left: frozenset[str] = frozenset()
    """Ids that said good-bye and are not taken again; remembered for at least their `ttl`."""


class NodeStore(ABC):
    """The nodes of one namespace, for one process.

    Every method may raise `ConnectionLost` (it may have taken effect; all may be repeated),
    `AuthenticationError` and `ConfigurationError`. Cancelled: it may have taken effect.
    """

    @abstractmethod
    async def register(self, record: NodeRecord) -> bool:
        """Write the record under a lease of `record.ttl` seconds, in one step, if its id is free
        or is this owner's already; say whether it was. An id is free once its lease has ended.

        Creates what it needs on the broker, unless told to verify only.
        """

    @abstractmethod
    async def renew(self, record: NodeRecord) -> bool:
        """Write the record and begin its lease again, in one step, while it is this owner's.

        False: its lease has ended, or another owner has the id; then nothing was changed. Costs
        the broker the same however many nodes there are, and wakes nobody.
        """

    @abstractmethod
    async def deregister(self, record: NodeRecord) -> bool:
        """Take the record away, in one step, while it is this owner's, and remember that it left.

        False: it was not; then nothing was changed.
        """

    @abstractmethod
    async def snapshot(self) -> Snapshot:
        """Read all nodes; at a broker where nobody has registered yet there are none."""

    @abstractmethod
    def hints(self, wake: Callable[[], None]) -> AbstractAsyncContextManager[None]:
        """Call `wake` soon after a node has registered or left, and after every reconnect, as long
        as the `async with` lasts.

        Hints may be lost and may be wrong: only the snapshot is the truth.
        """
