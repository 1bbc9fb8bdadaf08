"""The transport interface over a broker in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter

from catga.errors import ConfigurationError, ConnectionLost, NoResponders
from catga.spi import (
    Address,
    Capabilities,
    Capability,
    DeadLetterStore,
    EffectStore,
    EventKind,
    Health,
    InboxStore,
    Mode,
    NodeStore,
    Outgoing,
    PublishResult,
    Receipt,
    Rejected,
    Runtime,
    Source,
    Subscription,
    Topology,
    Transport,
    TransportEvent,
    check_token,
)
from catga_inmemory.broker import LiveListener, MemoryBroker, acquire, release
from catga_inmemory.deadletters import MemoryDeadLetters
from catga_inmemory.discovery import MemoryNodes
from catga_inmemory.inbox import MemoryInbox
from catga_inmemory.plugin import CAPABILITIES
from catga_inmemory.settings import MemorySettings
from catga_inmemory.subscriptions import LiveSubscription, LogSubscription

__all__ = ["MemoryTransport"]

_YIELD_EVERY = 256
_address = attrgetter("subject", "reply_to")
_CAPABILITIES = Capabilities(
    CAPABILITIES,
    {Capability.COMMANDS: "memory has no commands: a transaction writes keys and publishes"},
)


def _verify(broker: MemoryBroker, topology: Topology) -> None:
    for source in topology.sources:
        groups = broker.stream(source.namespace, source.type).groups
        if source.durable and not source.ephemeral and source.group not in groups:
            raise ConfigurationError(f"the group {source.group} of {source.type} does not exist")


class MemoryTransport(Transport):
    """`inmemory://` (private to one bus) and `inmemory://name` (shared in this process)."""

    def __init__(self, address: Address, settings: MemorySettings, *, keeps: bool = False) -> None:
        self._name = address.hosts[0][0] if address.hosts else address.path
        if self._name:
            check_token(self._name, "name in the inmemory:// URL")
        self._settings = settings
        self._keeps = keeps
        """Whether somebody asked for a retention: without that W is how long a message stays."""
        self._broker: MemoryBroker | None = None
        self._runtime: Runtime | None = None
        self._inbox: MemoryInbox | None = None
        self._open: list[Subscription] = []
        self._in_a_row = 0

    @property
    def capabilities(self) -> Capabilities:
        """Everything there is."""
        return _CAPABILITIES

    @property
    def max_payload_bytes(self) -> int | None:
        """Memory sets no limit."""
        return None

    @property
    def effects(self) -> EffectStore | None:
        """The keys of transactions, while this transport is open."""
        return None if self._broker is None else self._broker.effects

    @property
    def inbox(self) -> InboxStore | None:
        """The records of the broker this transport is open on."""
        return self._inbox

    async def open(self, runtime: Runtime) -> None:
        """Take or make the broker."""
        self._runtime = runtime
        self._broker = acquire(self._name, runtime.clock)
        self._inbox = MemoryInbox(self._broker.records, runtime.clock)

    async def prepare(self, topology: Topology, mode: Mode) -> None:
        """Declare the groups, or see that they are there; there is nothing else to disagree with.

        Raises `ConfigurationError` for a group that would have to be made and may not.
        """
        broker = self._need()
        if mode is Mode.VERIFY:
            _verify(broker, topology)
        if self._inbox is not None:
            self._inbox.ttl = topology.completion_ttl
        for type_ in {*topology.publishes, *(source.type for source in topology.sources)}:
            stream = broker.stream(topology.namespace, type_)
            stream.dedupe_window = topology.dedupe_window
            stream.retention = topology.retention if self._keeps else 0.0
        for source in topology.sources:
            if source.durable:
                broker.stream(source.namespace, source.type).declare(source)

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        """Hand over or store each; QoS 1 and 2 alike keep one copy per id within W."""
        self._in_a_row += len(batch)
        if self._in_a_row >= _YIELD_EVERY:  # nothing else here waits: others are to have a turn
            self._in_a_row = 0
            await asyncio.sleep(0)
        broker = self._broker
        if broker is None:
            return [Rejected(ConnectionLost("the in-memory transport is closed"))] * len(batch)
        results: list[PublishResult] = []
        for (subject, reply_to), run in groupby(batch, key=_address):
            if subject.durable:
                results += broker.store(list(run))
            else:
                results += self._send(broker, list(run), asks=reply_to is not None)
        return results

    def _send(
        self, broker: MemoryBroker, run: Sequence[Outgoing], *, asks: bool
    ) -> Iterable[PublishResult]:
        taken, dropped = broker.send_live(run)
        if dropped:
            self._emit(
                EventKind.SLOW_CONSUMER,
                f"listeners of {run[0].subject} dropped {dropped} message(s)",
            )
        if asks and not taken:
            return [Rejected(NoResponders(f"nobody listens on {run[0].subject}"))] * len(run)
        return [Receipt(outgoing.message_id) for outgoing in run]

    async def subscribe(self, source: Source) -> Subscription:
        """Open a live, reply or durable subscription."""
        broker = self._need()
        subscription: Subscription
        if source.durable:
            subscription = LogSubscription(broker, source, self._inbox)
        else:
            limit = self._settings.live_buffer
            subscription = LiveSubscription(
                broker, source, LiveListener(broker.clock, source.group, limit)
            )
        self._open.append(subscription)
        return subscription

    @property
    def dead_letters(self) -> DeadLetterStore | None:
        """Those of the broker this transport is open on."""
        return MemoryDeadLetters(self._need)

    async def wait_handled(self, stored: Sequence[tuple[Outgoing, Receipt]]) -> None:
        """Return once every group has handled or parked these entries."""
        broker = self._need()
        for subject, run in groupby(stored, key=lambda pair: pair[0].subject):
            stream = broker.stream(subject.namespace, subject.type)
            await stream.wait_handled([receipt.sequence for _, receipt in run])

    def node_store(self, namespace: str, ttl: float, mode: Mode) -> NodeStore:
        """Return the nodes of a namespace of this broker."""
        del ttl, mode
        return MemoryNodes(lambda: self._need().nodes(namespace))

    async def remove(self, namespace: str) -> None:
        """Forget everything stored under the namespace."""
        self._need().remove(namespace)

    async def health(self) -> Health:
        """Memory is there while the transport is open."""
        return Health(self._broker is not None, "" if self._broker else "closed")

    async def close(self) -> None:
        """Close the subscriptions and let go of the broker."""
        for subscription in self._open:
            await subscription.close()
        self._open.clear()
        broker, self._broker = self._broker, None
        if broker is not None:
            release(self._name, broker)

    def _need(self) -> MemoryBroker:
        if self._broker is None:
            raise ConnectionLost("the in-memory transport is not open")
        return self._broker

    def _emit(self, kind: EventKind, detail: str) -> None:
        if self._runtime is not None:
            self._runtime.emit(TransportEvent(kind, detail))
