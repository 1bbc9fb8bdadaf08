"""At most once, within one bus: what is published goes to whoever listens right now."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from catga.errors import CapabilityError, ConnectionLost
from catga.spi import (
    Capabilities,
    Capability,
    Delivery,
    Done,
    Health,
    InboxStore,
    Kind,
    Mailbox,
    Mode,
    Outgoing,
    PublishResult,
    QualityOfService,
    Receipt,
    Rejected,
    Runtime,
    Settle,
    SettleResult,
    Source,
    Subject,
    Subscription,
    Topology,
    Transport,
)
from catga_sample.plugin import SampleSettings

__all__ = ["SampleTransport"]


class SampleTransport(Transport):
    """Hands each message to the mailboxes of its subject."""

    def __init__(self, settings: SampleSettings) -> None:
        self._buffer = settings.buffer
        self._runtime: Runtime | None = None
        self._listeners: dict[str, list[Mailbox[Delivery]]] = defaultdict(list)

    @property
    def capabilities(self) -> Capabilities:
        """At most once, and nothing else."""
        reason = "the sample transport stores nothing"
        stored = (Capability.AT_LEAST_ONCE, Capability.EXACTLY_ONCE)
        return Capabilities(frozenset({Capability.AT_MOST_ONCE}), dict.fromkeys(stored, reason))

    @property
    def max_payload_bytes(self) -> None:
        """No limit."""

    @property
    def inbox(self) -> InboxStore | None:
        """None: nothing is stored."""
        return None

    async def open(self, runtime: Runtime) -> None:
        """Begin; there is nothing to connect to."""
        self._runtime = runtime

    async def prepare(self, topology: Topology, mode: Mode) -> None:
        """Refuse what would have to be stored."""
        del mode
        if topology.qos > QualityOfService.AT_MOST_ONCE:
            raise CapabilityError("the sample transport stores nothing")

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        """Hand each to its listeners."""
        return [self._hand_over(each) for each in batch]

    def _hand_over(self, message: Outgoing) -> PublishResult:
        if self._runtime is None:
            return Rejected(ConnectionLost("the sample transport is closed"))
        if message.qos > QualityOfService.AT_MOST_ONCE:
            return Rejected(CapabilityError("the sample transport stores nothing"))
        for mailbox in self._listeners[message.subject.text]:
            if len(mailbox) < self._buffer:
                mailbox.put(Delivery(message.subject, message.body, 1, "", math.inf))
        return Receipt(message.message_id)

    async def subscribe(self, source: Source) -> Subscription:
        """Listen to one type."""
        if self._runtime is None:
            raise ConnectionLost("the sample transport is closed")
        if source.durable or source.group or source.reply:
            raise CapabilityError("the sample transport has no groups and no replies")
        mailbox: Mailbox[Delivery] = Mailbox(self._runtime.clock)
        subject = Subject(source.namespace, Kind.LIVE, source.type)
        self._listeners[subject.text].append(mailbox)
        return SampleSubscription(mailbox)

    async def health(self) -> Health:
        """Healthy while open."""
        return Health(self._runtime is not None)

    async def close(self) -> None:
        """Forget the listeners."""
        self._runtime = None
        self._listeners.clear()


class SampleSubscription(Subscription):
    """A mailbox; at most once, so there is nothing to settle."""

    def __init__(self, mailbox: Mailbox[Delivery]) -> None:
        self._mailbox = mailbox

    @property
    def lease(self) -> float:
        """Infinite."""
        return math.inf

    async def receive(self, limit: int, max_wait: float) -> list[Delivery]:
        """Take what is there."""
        return await self._mailbox.receive(limit, max_wait)

    async def settle(self, batch: Sequence[Settle]) -> list[SettleResult]:
        """Do nothing."""
        return [Done() for _ in batch]

    async def extend(self, batch: Sequence[Delivery]) -> list[SettleResult]:
        """Do nothing."""
        return [Done() for _ in batch]

    async def drain(self) -> None:
        """Take nothing more in; what is inside can still be received."""
        self._mailbox.close()

    async def close(self) -> None:
        """Drop what is left."""
        self._mailbox.close()
        self._mailbox.clear()
