"""The transport interface. It moves batches, and results are values.

Rules that hold for every method:

* One failure never raises for the batch: each entry gets its own result.
* The engine never cancels `receive`, `settle`, `extend` or `publish`; `Subscription.drain` wakes a
  waiting `receive`, and every call ends by itself within a bound.
* A second settlement of one delivery answers `Lost` and has no effect.
* Client errors are translated in one place per plugin, always `from` the original.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from enum import StrEnum
from typing import Any

import attrs

from catga.errors import CapabilityError
from catga.ground.clock import Clock
from catga.model.capability import Capabilities
from catga.model.outcome import PublishResult, Receipt, SettleResult
from catga.model.qos import QualityOfService
from catga.spi.deadletters import DeadLetterStore
from catga.spi.delivery import Delivery, Outgoing, Settle
from catga.spi.discovery import NodeStore
from catga.spi.effects import EffectStore
from catga.spi.inbox import Commit, InboxStore

__all__ = [
    "LEASE_MARGIN",
    "EventKind",
    "Health",
    "Mode",
    "Records",
    "Runtime",
    "Source",
    "Start",
    "Subscription",
    "Topology",
    "Transport",
    "TransportEvent",
]


LEASE_MARGIN = 0.05
"""The share of a lease that may have passed between the server's hand-over and our receipt: a
delivery's `lease_until` ends by so much earlier here than at the server."""


class EventKind(StrEnum):
    """What a transport tells about itself between calls."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    GAP = "gap"
    """QoS 0 messages may have been missed."""
    SLOW_CONSUMER = "slow-consumer"
    RISK = "risk"
    """A server setting weakens a promise; said once at start-up."""
    TROUBLE = "trouble"
    """Something failed that will be tried again."""


@attrs.frozen
class TransportEvent:
    """One thing to log and count; `detail` never holds credentials or bodies."""

    kind: EventKind
    detail: str


@attrs.frozen
class Runtime:
    """What the bus lends to a transport."""

    clock: Clock
    """For waiting, and for dates that are written down. Leases and windows go by the broker's own
    clock: every member's wall clock may differ, and be set."""
    spawn: Callable[[Coroutine[Any, Any, Any], str], Any]
    """Start a named background task; the bus owns it and cancels it after `close`."""
    emit: Callable[[TransportEvent], None]
    instance: str
    """A token unique to this bus: for reply subjects and the names of group members."""
    service: str
    """Shown to the server as the client's name."""
    connect_deadline: float
    """Seconds `open` may take before it raises `ConnectionLost` or `AuthenticationError`."""


@attrs.frozen
class Health:
    """`ok` only while messages can move; `detail` says what is wrong."""

    ok: bool
    detail: str = ""


class Start(StrEnum):
    """Where a group begins that did not exist before."""

    BEGINNING = "beginning"
    NEW = "new"


class Mode(StrEnum):
    """Whether `prepare` may create what is missing."""

    CREATE = "create"
    VERIFY = "verify"


@attrs.frozen
class Source:
    """What one subscription delivers: everything of one kind for one type (and group).

    * `durable` and a `group`: the stored subjects `LOG`, `TO` and `REDO` of (group, type), through
      a durable consumer of that group.
    * `durable` and `ephemeral`: a group that ends with this subscription and starts with what is
      new; only the `LOG` subject.
    * not `durable`, with a `group`: `LIVE` and `LIVE_TO`, one member of the group gets each.
    * not `durable`, no `group`: `LIVE`, every listener gets each.
    * `reply`: what is sent to `REPLY` subjects of this bus's instance (`type` is ignored).
    """

    namespace: str
    type: str = ""
    group: str = ""
    durable: bool = False
    ephemeral: bool = False
    reply: bool = False
    start: Start = Start.BEGINNING
    window: int = 500
    """At most so many deliveries are handed out unsettled and buffered together (durable)."""
    lease: float = 30.0
    """Seconds a delivery stays with its receiver unless extended or settled (durable)."""
    attempts: int = 5
    """After so many the engine parks it; a server-side limit must lie well above."""


class Records(StrEnum):
    """Where the completion records of a bus are, seen from one transport."""

    HERE = "here"
    """Beside its messages."""
    ELSEWHERE = "elsewhere"
    """Another transport has them."""
    ONLY = "only"
    """It has nothing but them: there are neither `publishes` nor `sources`."""


@attrs.frozen
class Topology:
    """Everything a bus needs on the broker, for `prepare`."""

    namespace: str
    publishes: tuple[str, ...]
    """The wire names this bus may publish at QoS 1 or 2."""
    sources: tuple[Source, ...]
    """The subscriptions it is going to open."""
    qos: QualityOfService
    """The strictest quality among all of it."""
    dedupe_window: float
    """W: seconds within which one message id is stored once; infinite: for ever
    (`Capability.FOREVER`, at QoS 2)."""
    completion_ttl: float
    """D: seconds for which completion records are kept."""
    accept_risk: frozenset[str] = frozenset()
    """Broken assumptions, by name, that QoS 2 is to start on all the same."""
    retention: float = float("inf")
    """Seconds for which a stored message stays at the least. What is older, older than W, and
    settled by every declared group may be removed; nothing else ever is."""
    records: Records = Records.HERE


class Subscription(ABC):
    """A live handle on one `Source`. One reader at a time."""

    @property
    @abstractmethod
    def lease(self) -> float:
        """Seconds a delivery stays with its receiver, as the server really has it; infinite at
        QoS 0."""

    @abstractmethod
    async def receive(self, limit: int, max_wait: float) -> list[Delivery]:
        """Return 1 to `limit` deliveries, or none after `max_wait` seconds or once drained.

        Raises `SubscriptionClosed` when nothing will ever come again though nobody closed it
        (the stream or the group is gone), with the reason.
        """

    @abstractmethod
    async def settle(self, batch: Sequence[Settle]) -> list[SettleResult]:
        """Settle each; results in the same order. At QoS 0 there is nothing to settle: `Done`.

        After `Unknown` the same settlement may be asked for again.
        """

    @abstractmethod
    async def extend(self, batch: Sequence[Delivery]) -> list[SettleResult]:
        """Renew the lease of each for another `Source.lease` seconds; `Lost` when it is gone."""

    async def commit(self, batch: Sequence[Commit]) -> list[SettleResult]:
        """Write each record and acknowledge its delivery in one step.

        Needs `Capability.COMMIT`. `Done` also when the record was there before, which then stays
        as it is; `Lost` when the delivery is another consumer's by now and there is no record.

        With `Commit.effects` (`Capability.ATOMIC`) they are written in the same step, unless the
        record was there before (`Done.before`); `Conflict`, and nothing was written and the
        delivery is still ours, when a version they name is not the present one; `Refused`, and as
        before, when part of it could not be carried out. What they publish is on its way for good
        with the record; a broker may hand it on a little later.
        """
        del batch
        raise CapabilityError("this transport has no one-step commit")

    async def park(self, batch: Sequence[tuple[Delivery, Outgoing]]) -> list[SettleResult]:
        """Store each dead letter and settle its delivery in one step.

        Needs `Capability.PARK`. `Done` also when the letter was there before; `Lost`, and nothing
        is stored, when the delivery is another consumer's by now; after `Unknown` it may be asked
        for again. A letter over the limit is `Unknown` with `PayloadTooLarge` and was not stored:
        the next one asked for is smaller.
        """
        del batch
        raise CapabilityError("this transport cannot park in one step")

    @abstractmethod
    async def drain(self) -> None:
        """Ask for nothing more and wake `receive`. What was received can still be settled.

        What the broker handed over and `receive` has not returned is given back at once, or
        (QoS 0) is still returned by `receive`.
        """

    @abstractmethod
    async def close(self) -> None:
        """Release everything now. Idempotent, safe after a failure.

        What is unsettled comes again, at once or when its lease has ended.
        """


class Transport(ABC):
    """The client side of one broker, for one bus."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this transport can do on the server it is connected to; complete after `open`."""

    @property
    @abstractmethod
    def max_payload_bytes(self) -> int | None:
        """The largest body plus headers the broker takes, or None when it sets no limit."""

    @property
    def server(self) -> str:
        """What the connected server calls itself, with its version (`valkey 9.1.0`); empty when
        it does not tell. For reports only: what it can do stands in `capabilities`."""
        return ""

    @abstractmethod
    async def open(self, runtime: Runtime) -> None:
        """Connect. Raises `ConnectionLost`, `AuthenticationError`, `CapabilityError` (too old)."""

    @abstractmethod
    async def prepare(self, topology: Topology, mode: Mode) -> None:
        """Create or verify streams, groups and stores; may be called again with more.

        What the server has but differs from an explicit setting is reconciled where the server
        allows it, else refused by name with `ConfigurationError`. Raises `CapabilityError` when a
        promise of `topology.qos` cannot be kept (at QoS 2), emits `RISK` otherwise.
        """

    @abstractmethod
    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        """Hand over each; results in the same order.

        At QoS 0 the result means handed over; when not connected it is `Rejected`, never kept for
        later. At QoS 1 and 2 it means stored. A body over the limit is `Rejected` with
        `PayloadTooLarge` before anything of it is sent.
        """

    @abstractmethod
    async def subscribe(self, source: Source) -> Subscription:
        """Return a subscription that is confirmed by the broker. Call `prepare` with it first."""

    @property
    @abstractmethod
    def inbox(self) -> InboxStore | None:
        """The transport's own store of completion records, if it has one."""

    @property
    def effects(self) -> EffectStore | None:
        """Where the keys of transactions can be read (`Capability.ATOMIC`)."""
        return None

    @property
    def dead_letters(self) -> DeadLetterStore | None:
        """Where the dead letters can be looked at and removed, if the transport can do that."""
        return None

    async def wait_handled(self, stored: Sequence[tuple[Outgoing, Receipt]]) -> None:
        """Return once every group has succeeded with each of these messages or parked it.

        `stored`: what was published, with the receipts of it. Needs `Capability.HANDLED`. Raises
        nothing for a handler's failure.
        """
        del stored
        raise CapabilityError("this transport cannot tell when a message was handled")

    def node_store(self, namespace: str, ttl: float, mode: Mode) -> NodeStore:
        """Return the nodes of a namespace; asks the broker nothing yet.

        `ttl` is the longest lease in seconds that this process registers with, `mode` whether
        registering may create what is missing. Needs `Capability.DISCOVERY`.
        """
        del ttl, mode
        raise CapabilityError(f"this transport has no discovery of nodes (for {namespace!r})")

    async def remove(self, namespace: str) -> None:
        """Delete everything on the broker that belongs to a namespace: messages, dead letters,
        groups, records, nodes. For tests and demonstrations that clean up after themselves."""
        raise CapabilityError(f"this transport cannot remove the namespace {namespace!r}")

    @abstractmethod
    async def health(self) -> Health:
        """Ask the server now, within a second or two."""

    @abstractmethod
    async def close(self) -> None:
        """Release everything. Idempotent, safe after a failure."""
