"""A tap between a bus and its transport: a law sees what was handed over and what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum

import attrs

from catga.errors import PublishRejected
from catga.model.capability import Capabilities
from catga.spi import (
    Commit,
    Completion,
    DeadLetterStore,
    Delivery,
    Done,
    EffectStore,
    Health,
    InboxStore,
    Kind,
    Mode,
    NodeStore,
    Outgoing,
    PublishResult,
    Receipt,
    Record,
    Rejected,
    Runtime,
    Settle,
    SettleResult,
    Source,
    Subscription,
    Topology,
    Transport,
    Unknown,
)

__all__ = ["Point", "Tap", "TappedTransport"]


_REFUSED = PublishRejected("the broker has no room")


class Point(StrEnum):
    """Between which steps of a completion a bus is."""

    LOOKED_UP = "what was completed is known, and nothing is begun"
    HANDLED = "the handler has returned, and nothing is recorded"
    RECORDED = "it is recorded (in one step with the acknowledgement, where that can be)"
    SETTLED = "it is acknowledged"


@attrs.define
class Tap:
    """What passed from the buses of one law to their transports."""

    published: list[tuple[Outgoing, PublishResult]] = attrs.field(factory=list)
    in_flight: int = 0
    peak: int = 0
    """The most messages that were under way at the same time."""
    at: Callable[[Point], Awaitable[None]] | None = None
    """Awaited at each point that a bus comes to: so a law can end it exactly there."""
    lost: set[Kind] = attrs.field(factory=set)
    """What goes to subjects of these kinds is handed over and arrives nowhere (QoS 0)."""
    refused: set[Kind] = attrs.field(factory=set)
    """What goes to subjects of these kinds is refused, as by a broker that is full."""

    async def reach(self, point: Point) -> None:
        """A bus has come so far."""
        if self.at is not None:
            await self.at(point)

    def stored(self, kind: Kind) -> list[Outgoing]:
        """Return what got a receipt, was no duplicate, and went to subjects of this kind."""
        return [
            outgoing
            for outgoing, result in self.published
            if outgoing.subject.kind is kind
            and isinstance(result, Receipt)
            and not result.duplicate
        ]


class TappedSubscription(Subscription):
    """Passes everything on; only `park` is looked at."""

    def __init__(self, inner: Subscription, tap: Tap) -> None:
        self._inner = inner
        self._tap = tap

    @property
    def lease(self) -> float:
        """Of the subscription behind."""
        return self._inner.lease

    async def receive(self, limit: int, max_wait: float) -> list[Delivery]:
        """Pass it on."""
        return await self._inner.receive(limit, max_wait)

    async def settle(self, batch: Sequence[Settle]) -> list[SettleResult]:
        """Pass it on."""
        results = await self._inner.settle(batch)
        await self._tap.reach(Point.SETTLED)
        return results

    async def extend(self, batch: Sequence[Delivery]) -> list[SettleResult]:
        """Pass it on."""
        return await self._inner.extend(batch)

    async def commit(self, batch: Sequence[Commit]) -> list[SettleResult]:
        """Pass it on."""
        await self._tap.reach(Point.HANDLED)
        results = await self._inner.commit(batch)
        await self._tap.reach(Point.RECORDED)
        await self._tap.reach(Point.SETTLED)
        return results

    async def park(self, batch: Sequence[tuple[Delivery, Outgoing]]) -> list[SettleResult]:
        """Pass it on, and note each letter that was stored as if it had been published."""
        if Kind.DEAD in self._tap.refused:
            return [Unknown(_REFUSED)] * len(batch)
        results = await self._inner.park(batch)
        self._tap.published += [
            (letter, Receipt(letter.message_id))
            for (_, letter), result in zip(batch, results, strict=True)
            if isinstance(result, Done)
        ]
        return results

    async def drain(self) -> None:
        """Pass it on."""
        await self._inner.drain()

    async def close(self) -> None:
        """Pass it on."""
        await self._inner.close()


class TappedInbox(InboxStore):
    """Passes everything on."""

    def __init__(self, inner: InboxStore, tap: Tap) -> None:
        self._inner = inner
        self._tap = tap

    async def completed(self, keys: Sequence[Completion]) -> list[bool]:
        """Pass it on."""
        found = await self._inner.completed(keys)
        await self._tap.reach(Point.LOOKED_UP)
        return found

    async def responses(self, keys: Sequence[Completion]) -> list[bytes | None]:
        """Pass it on."""
        return await self._inner.responses(keys)

    async def record(self, records: Sequence[Record]) -> list[SettleResult]:
        """Pass it on."""
        await self._tap.reach(Point.HANDLED)
        results = await self._inner.record(records)
        await self._tap.reach(Point.RECORDED)
        return results


class TappedTransport(Transport):
    """Passes everything on; only what is stored through it is looked at."""

    def __init__(self, inner: Transport, tap: Tap) -> None:
        self._inner = inner
        self._tap = tap

    @property
    def capabilities(self) -> Capabilities:
        """Of the transport behind."""
        return self._inner.capabilities

    @property
    def max_payload_bytes(self) -> int | None:
        """Of the transport behind."""
        return self._inner.max_payload_bytes

    @property
    def inbox(self) -> InboxStore | None:
        """Of the transport behind."""
        inner = self._inner.inbox
        return None if inner is None else TappedInbox(inner, self._tap)

    @property
    def dead_letters(self) -> DeadLetterStore | None:
        """Of the transport behind."""
        return self._inner.dead_letters

    @property
    def effects(self) -> EffectStore | None:
        """Of the transport behind."""
        return self._inner.effects

    async def open(self, runtime: Runtime) -> None:
        """Pass it on."""
        await self._inner.open(runtime)

    async def prepare(self, topology: Topology, mode: Mode) -> None:
        """Pass it on."""
        await self._inner.prepare(topology, mode)

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        """Pass it on, and note each message with its result."""
        tap = self._tap
        tap.in_flight += len(batch)
        tap.peak = max(tap.peak, tap.in_flight)
        try:
            results = await self._publish(batch)
        finally:
            tap.in_flight -= len(batch)
        tap.published += zip(batch, results, strict=True)
        return results

    async def _publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        lost, refused = self._tap.lost, self._tap.refused
        absent = lost | refused
        arriving = [outgoing for outgoing in batch if outgoing.subject.kind not in absent]
        results = iter(await self._inner.publish(arriving) if arriving else ())

        def result(outgoing: Outgoing) -> PublishResult:
            kind = outgoing.subject.kind
            if kind in refused:
                return Rejected(_REFUSED)
            return Receipt(outgoing.message_id) if kind in lost else next(results)

        return [result(outgoing) for outgoing in batch]

    async def subscribe(self, source: Source) -> Subscription:
        """Pass it on."""
        return TappedSubscription(await self._inner.subscribe(source), self._tap)

    async def wait_handled(self, stored: Sequence[tuple[Outgoing, Receipt]]) -> None:
        """Pass it on."""
        await self._inner.wait_handled(stored)

    def node_store(self, namespace: str, ttl: float, mode: Mode) -> NodeStore:
        """Pass it on."""
        return self._inner.node_store(namespace, ttl, mode)

    async def remove(self, namespace: str) -> None:
        """Pass it on."""
        await self._inner.remove(namespace)

    async def health(self) -> Health:
        """Pass it on."""
        return await self._inner.health()

    async def close(self) -> None:
        """Pass it on."""
        await self._inner.close()
