"""The transport interface over a broker in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from catga.errors import ConfigurationError, ConnectionLost, NoResponders
from catga.spi import (
    Address,
    Capabilities,
    Capability,
    Completion,
    DeadLetterStore,
    Done,
    EffectStore,
    EventKind,
    Health,
    InboxStore,
    Mode,
    NodeStore,
    Outgoing,
    PublishResult,
    Receipt,
    Record,
    Rejected,
    Runtime,
    SettleResult,
    Source,
    Subject,
    Subscription,
    Topology,
    Transport,
    TransportEvent,
    check_token,
)
from catga_inmemory.broker import LiveListener, MemoryBroker, acquire, release
from catga_inmemory.deadletters import MemoryDeadLetters
from catga_inmemory.discovery import MemoryNodes
from catga_inmemory.plugin import CAPABILITIES
from catga_inmemory.settings import MemorySettings
from catga_inmemory.subscriptions import LiveSubscription, LogSubscription

__all__ = ["MemoryTransport"]

_CAPABILITIES = Capabilities(
    CAPABILITIES,
    {Capability.COMMANDS: "memory has no commands: a transaction writes keys and publishes"},
)


class MemoryInbox(InboxStore):
    """Completion records in a dictionary, each kept for D seconds."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self.ttl = 86_400.0

    async def completed(self, keys: Sequence[Completion]) -> list[bool]:
        """Look each key up."""
        return [self.find(key) is not None for key in keys]

    async def responses(self, keys: Sequence[Completion]) -> list[bytes | None]:
        """Look each key up."""
        found = [self.find(key) for key in keys]
        return [None if record is None else record.response for record in found]

    async def record(self, records: Sequence[Record]) -> list[SettleResult]:
        """Write each; cannot fail."""
        for record in records:
            self.note(record)
        return [Done()] * len(records)

    def find(self, key: Completion) -> Record | None:
        """Return the record while it is kept."""
        until, record = self._broker.completions.get(_record_key(key), (0.0, None))
        return record if until > self._broker.clock.monotonic() else None

    def note(self, record: Record) -> None:
        """Write one record, unless it is there, and forget the oldest that have expired."""
        records = self._broker.completions
        now = self._broker.clock.monotonic()
        while records and next(iter(records.values()))[0] <= now:
            del records[next(iter(records))]
        if self.find(record.key) is None:
            key = _record_key(record.key)
            records.pop(key, None)  # so that the oldest stay in front
            records[key] = (now + self.ttl, record)


def _verify(broker: MemoryBroker, topology: Topology) -> None:
    for source in topology.sources:
        groups = broker.stream(source.namespace, source.type).groups
        if source.durable and not source.ephemeral and source.group not in groups:
            raise ConfigurationError(f"the group {source.group} of {source.type} does not exist")


def _record_key(key: Completion) -> tuple[str, str, str, str]:
    return (key.namespace, key.group, key.type, key.message_id)


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
        self._inbox = MemoryInbox(self._broker)

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
        broker = self._broker
        if broker is None:
            return [Rejected(ConnectionLost("the in-memory transport is closed"))] * len(batch)
        return [self._publish_one(broker, outgoing) for outgoing in batch]

    def _publish_one(self, broker: MemoryBroker, outgoing: Outgoing) -> PublishResult:
        subject = outgoing.subject
        if subject.durable:
            entry, duplicate = broker.stream(subject.namespace, subject.type).append(outgoing)
            return Receipt(outgoing.message_id, str(entry.sequence), duplicate)
        taken, dropped = broker.send_live(outgoing)
        if dropped:
            self._emit(
                EventKind.SLOW_CONSUMER, f"{dropped} listener(s) of {subject} dropped a message"
            )
        if outgoing.reply_to is not None and not taken:
            return Rejected(NoResponders(f"nobody listens on {subject}"))
        return Receipt(outgoing.message_id)

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

    async def wait_handled(self, subject: Subject, sequence: str) -> None:
        """Return once every group has handled or parked this entry."""
        stream = self._need().stream(subject.namespace, subject.type)
        entry = stream.entries.get(int(sequence))
        if entry is None or entry.open_groups <= 0:
            return
        if entry.finished is None:
            entry.finished = asyncio.get_running_loop().create_future()
        await asyncio.shield(entry.finished)

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
