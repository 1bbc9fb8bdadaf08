"""Being a node, and seeing the others: leases, heartbeats and ids over a transport's store."""

from __future__ import annotations

import asyncio
import math
import random as randomness
from collections.abc import Callable, Mapping

import attrs

from catga.engine.membership import Watch, in_order
from catga.engine.wording import tell_of
from catga.errors import (
    AuthenticationError,
    ConfigurationError,
    LeaseLost,
    NodeTaken,
    TransportError,
)
from catga.ground.clock import Clock
from catga.model.node import Node, NodeRecord
from catga.spi import EventKind, NodeStore, Sighting, TransportEvent

__all__ = ["Discovery", "NodePace"]

_TRIES_PER_LEASE = 12
_FAREWELL = 2.0
_RACE = 0.05
"""Seconds after which an id that was just given up, or just taken, is looked at again."""


@attrs.frozen
class NodePace:
    """Seconds of a lease, and between heartbeats."""

    ttl: float
    heartbeat: float


class Discovery:
    """The nodes of one namespace, of which this process may be one.

    A node that registered must renew its lease by `heartbeat`; a bus that is told to be a node
    (`Bus(node=…)`) does all of it by itself. Methods raise `ConnectionLost` when the broker does
    not answer (it may have taken effect, and may be repeated).
    """

    def __init__(
        self,
        store: NodeStore,
        clock: Clock,
        pace: NodePace,
        owner: str,
        *,
        emit: Callable[[TransportEvent], None],
        random: Callable[[], float] = randomness.random,
    ) -> None:
        self._store = store
        self._clock = clock
        self._pace = pace
        self._owner = owner
        self._emit = emit
        self._random = random
        self._record: NodeRecord | None = None
        self._lease_until = -math.inf
        self._writing = asyncio.Lock()
        self._said = ""

    @property
    def node(self) -> Node | None:
        """What this process is registered as, or tries to be; None before and after."""
        return None if self._record is None else self._record.node

    @property
    def lease_until(self) -> float:
        """Until when, on the clock's monotonic time, the id is surely ours; in the past when it
        is not. Who must not work beside a successor stops then."""
        return self._lease_until

    # ---- being one

    async def register(self, node: Node) -> None:
        """Become `node`, seen by all for the length of a lease.

        `started` is filled in unless it is given. Raises `NodeTaken` when another one has its id,
        and `ConfigurationError` when this process is a node already, or for a node without a
        service. Cancelled: it may be registered until its lease ends.
        """
        if not node.service:
            raise ConfigurationError(f"the node {node.id} needs a service")
        async with self._writing:
            if self._record is not None and self._clock.monotonic() < self._lease_until:
                raise ConfigurationError(f"this is the node {self._record.node.id} already")
            record = NodeRecord(node.begun(self._clock.now()), self._owner, self._pace.ttl)
            await self._take(record)
            self._record = record

    async def take_over(self, node: Node) -> None:
        """Register, waiting for the end of the lease that a dead node still has on this id.

        Raises `NodeTaken` as soon as that one is seen to live, and what `register` raises.
        """
        first: Sighting | None = None
        until = self._clock.monotonic() + self._pace.ttl
        while True:
            try:
                await self.register(node)
                return
            except NodeTaken:
                holder = (await self._store.snapshot()).present.get(node.id)
                if holder is not None:
                    if first is None:
                        first, until = holder, self._clock.monotonic() + 2 * holder.expires_in
                        self._tell(f"waiting for the end of the lease that another {node.id} has")
                    if first.node.last_seen != holder.node.last_seen:
                        raise
                if self._clock.monotonic() > until:
                    raise
                left = _RACE if holder is None else holder.expires_in + _RACE
                await self._clock.sleep(min(left, self._pace.ttl / _TRIES_PER_LEASE))

    async def heartbeat(
        self, load: float | None = None, *, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Renew the lease; say what has changed about this node, if anything has.

        Raises `LeaseLost` when the lease has ended before, or another one has the id: `register`
        again. Cancelled: it may have taken effect.
        """
        async with self._writing:
            if self._record is None:
                raise ConfigurationError("this is not a node: register first")
            node = self._record.node
            node = attrs.evolve(
                node,
                load=node.load if load is None else load,
                metadata=node.metadata if metadata is None else metadata,
            )
            await self._renew(attrs.evolve(self._record, node=node))

    async def deregister(self) -> None:
        """Say good-bye: all see at once that it left. Idempotent.

        A broker that is just coming back is given two seconds. When it fails the node is seen until
        its lease ends. Cancelled: the same.
        """
        async with self._writing:
            record, self._record = self._record, None
            self._lease_until = -math.inf
            if record is not None:
                await self._say_good_bye(record)

    async def _say_good_bye(self, record: NodeRecord) -> None:
        until = self._clock.monotonic() + _FAREWELL
        while True:
            try:
                await self._store.deregister(record)
                return
            except AuthenticationError:
                raise
            except TransportError:
                if self._clock.monotonic() >= until:
                    raise
            await self._clock.sleep(_FAREWELL / 10)

    async def keep(self) -> None:
        """Renew the lease until `deregister`, whatever happens to the broker; a lease that has
        ended meanwhile is taken again, unless another one has the id by now."""
        while self._record is not None:
            pause = self._pace.heartbeat * (0.9 + 0.2 * self._random())
            if self._said:  # something is wrong: be back soon
                pause /= _TRIES_PER_LEASE / 3
            await self._clock.sleep(pause)
            async with self._writing:
                if self._record is not None:
                    await self._stay(self._record)

    async def _stay(self, record: NodeRecord) -> None:
        try:
            try:
                await self._renew(record)
            except LeaseLost:
                await self._take(record)
        except Exception as error:
            self._tell(tell_of(error, "keeping a node's lease met what nobody foresaw"))

    async def _take(self, record: NodeRecord) -> None:
        begun = self._clock.monotonic()
        if not await self._store.register(record):
            raise await self._taken(record.node.id)
        self._lease_until = begun + record.ttl
        self._said = ""

    async def _taken(self, name: str) -> NodeTaken:
        holder = (await self._store.snapshot()).present.get(name)
        who = "another" if holder is None else f"{holder.node.service} {holder.node.address}"
        return NodeTaken(f"the node id {name} is held by {who.rstrip()}: choose another one")

    async def _renew(self, record: NodeRecord) -> None:
        begun = self._clock.monotonic()
        # By our own clock it has ended: the broker may not have noticed yet.
        if begun >= self._lease_until or not await self._store.renew(record):
            self._lease_until = -math.inf
            raise LeaseLost(f"the lease of the node {record.node.id} has ended: register again")
        self._record = record
        self._lease_until = begun + record.ttl
        self._said = ""

    def _tell(self, words: str) -> None:
        if words != self._said:
            self._said = words
            self._emit(TransportEvent(EventKind.TROUBLE, f"node: {words}"))

    # ---- seeing the others

    async def nodes(self) -> tuple[Node, ...]:
        """Return everybody who is there now, by service and id; asks the broker."""
        snapshot = await self._store.snapshot()
        return in_order(sighting.node for sighting in snapshot.present.values())

    def watch(self) -> Watch:
        """Return what tells joined, left, updated and expired: `async with` it, then iterate."""
        return Watch(self._store, self._clock, self._pace.ttl, self._random)
