"""The stage of one law: transports on one broker, in a namespace of their own, all closed after."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from catga.bus import Bus, Parts
from catga.errors import CatgaError
from catga.ground.clock import Clock
from catga.ground.ids import new_instance, new_message_id
from catga.ground.tasks import TaskOwner
from catga.model.qos import QualityOfService
from catga.spi import (
    Ack,
    Commit,
    Completion,
    Delivery,
    Effects,
    InboxStore,
    Kind,
    Mode,
    Outgoing,
    PublishResult,
    Receipt,
    Record,
    Runtime,
    Settle,
    SettleResult,
    Source,
    Start,
    Subject,
    Subscription,
    Topology,
    Transport,
    TransportDescriptor,
    TransportEvent,
)
from catga.testing.faults import FaultProxy
from catga.testing.pace import Pace
from catga.testing.tap import Tap, TappedTransport

if TYPE_CHECKING:
    from catga.testing.harness import Harness

__all__ = ["NotShown", "Stage", "accepted"]

T = TypeVar("T")

_WINDOW = 600.0
_TTL = 86_400.0


class NotShown(Exception):
    """The law cannot be shown on this harness; the text says what is missing."""


class Stage(Pace):
    """What a law acts with. Seconds are the law's; the harness says how long they really take."""

    def __init__(self, harness: Harness) -> None:
        self.tasks = TaskOwner()
        super().__init__(harness.clock(), harness.time_scale, self.tasks)
        self.harness = harness
        self.namespace = f"law-{new_instance()}"
        self.namespaces = [self.namespace]
        """All are removed at the end: a law that makes another one appends it."""
        self.lease = self.scaled(2.0)
        self.events: list[TransportEvent] = []
        self.tap = Tap()
        """What the buses of this law handed to their transports."""
        self.anchor: Transport
        """Open all the time: a broker in memory lives only as long as somebody uses it."""
        self._reached = False
        self._transports: list[Transport] = []
        self._proxies: list[FaultProxy] = []

    async def open(self) -> None:
        """Reach the broker."""
        self.anchor = await self.transport()
        self._reached = True

    # ---- parts

    async def transport(self, url: str | None = None, **settings: object) -> Transport:
        """Return another open transport of the same broker: another process, as it were."""
        transport = self.harness.make(url, **settings)
        self._transports.append(transport)
        await transport.open(self.runtime())
        return transport

    def runtime(self) -> Runtime:
        """Return what a transport is lent."""
        return Runtime(
            clock=self.clock,
            spawn=self.tasks.spawn,
            emit=self.events.append,
            instance=new_instance(),
            service="law",
            connect_deadline=5.0,
        )

    async def proxy(self) -> tuple[FaultProxy, str]:
        """Return a proxy before the broker, and the URL through it (`Ability.CUT`)."""
        proxy = await FaultProxy(self.harness.proxied_port or 0).start()
        self._proxies.append(proxy)
        return proxy, self.harness.url_at(proxy.port)

    def source(self, type_: str, group: str = "workers", **more: Any) -> Source:
        """Return a durable source of this stage; `durable=False` makes it live."""
        given = {"durable": True, "lease": self.lease, "start": Start.BEGINNING, **more}
        return Source(self.namespace, type_, group, **given)

    def topology(
        self, *sources: Source, publishes: Sequence[str] = (), qos: int = 1, **more: Any
    ) -> Topology:
        """Return a topology with generous windows."""
        given = {"dedupe_window": _WINDOW, "completion_ttl": _TTL, **more}
        return Topology(
            namespace=self.namespace,
            publishes=tuple(publishes),
            sources=sources,
            qos=QualityOfService(qos),
            **given,
        )

    async def member(
        self, transport: Transport, type_: str, group: str = "workers", **more: Any
    ) -> Subscription:
        """Prepare and open a subscription."""
        source = self.source(type_, group, **more)
        if source.durable:
            await transport.prepare(self.topology(source), Mode.CREATE)
        return await transport.subscribe(source)

    async def inbox(self, transport: Transport, *types: str) -> InboxStore:
        """Return the completion records of a transport, prepared for these types."""
        sources = (self.source(type_) for type_ in types)
        await transport.prepare(self.topology(*sources, qos=2), Mode.CREATE)
        assert transport.inbox is not None, "exactly once needs completion records"
        return transport.inbox

    def bus(
        self,
        *,
        settings: dict[str, object] | None = None,
        url: str | None = None,
        clock: Clock | None = None,
        tap: Tap | None = None,
        **more: Any,
    ) -> Bus:
        """Return a bus on the same broker, in the same namespace, seen by `tap`; `url` is another
        way there, `clock` and `tap` replace the stage's."""
        given = {
            "lease": self.lease,
            "backoff_base": self.scaled(0.1),
            "backoff_cap": self.scaled(0.2),
            "drain_deadline": self.scaled(8.0),
            "wait_handled": False,
            **self.harness.settings,
            **(settings or {}),
        }
        arguments: dict[str, Any] = {"service": "law", "namespace": self.namespace, **more}
        arguments.setdefault("inbox", self.harness.inbox)
        catalog, own = self.harness.plugins, self.harness.descriptor
        every = {**catalog.transports, **dict.fromkeys(own.schemes, own)}
        # The one of the completion records as well, where that is another one.
        transports = {scheme: _tapped(each, tap or self.tap) for scheme, each in every.items()}
        parts = Parts(
            clock=clock or self.clock, catalog=attrs.evolve(catalog, transports=transports)
        )
        return Bus(url or self.harness.url, settings=given, parts=parts, **arguments)

    @asynccontextmanager
    async def running(self, *buses: Bus) -> AsyncIterator[None]:
        """Run the buses; they drain and close while time goes on."""
        entered: list[Bus] = []
        try:
            for bus in buses:
                await self.wait(bus.__aenter__())
                entered.append(bus)
            yield
        finally:
            for bus in entered:
                await self.wait(bus.__aexit__(None, None, None), 40.0)

    # ---- messages

    def out(
        self,
        type_: str,
        body: bytes = b"{}",
        *,
        qos: int = 1,
        message_id: str | None = None,
        kind: Kind | None = None,
        group: str = "",
    ) -> Outgoing:
        """Return one outgoing message."""
        if kind is None:
            kind = Kind.LOG if qos else Kind.LIVE
        subject = Subject(self.namespace, kind, type_, group)
        return Outgoing(subject, body, message_id or new_message_id(), QualityOfService(qos))

    async def store(self, transport: Transport, *batch: Outgoing, **more: Any) -> list[Receipt]:
        """Publish; every result must be a receipt. `more` goes into the topology."""
        types = sorted({outgoing.subject.type for outgoing in batch})
        qos = max(outgoing.qos for outgoing in batch)
        if qos:
            await transport.prepare(self.topology(publishes=types, qos=qos, **more), Mode.CREATE)
        return [accepted(result) for result in await self.wait(transport.publish(batch))]

    async def receive(
        self, subscription: Subscription, count: int, seconds: float = 20.0
    ) -> list[Delivery]:
        """Receive exactly `count` deliveries."""
        found: list[Delivery] = []

        async def read() -> None:
            while len(found) < count:
                found.extend(await subscription.receive(count - len(found), 0.5))
                await asyncio.sleep(0)  # a transport that answers at once must not stop the loop

        await self.wait(read(), seconds)
        return found

    async def nothing(self, subscription: Subscription, seconds: float = 0.5) -> None:
        """Assert that nothing comes for a while."""
        found = await self.wait(subscription.receive(10, self.scaled(seconds)))
        assert found == [], "nothing more should have come"

    async def settle(
        self, subscription: Subscription, delivery: Delivery, outcome: Any = None
    ) -> SettleResult:
        """Settle one delivery (acknowledge, unless told otherwise), confirmed."""
        given = Ack() if outcome is None else outcome
        return (await self.wait(subscription.settle([Settle(delivery, given, confirm=True)])))[0]

    async def commit(
        self, member: Subscription, delivery: Delivery, message_id: str, effects: Effects
    ) -> SettleResult:
        """Record a message of type `Charge` as completed by `workers`, with its effects."""
        record = Record(self.completion("Charge", message_id))
        (result,) = await self.wait(member.commit([Commit(delivery, record, effects)]))
        return result

    async def copies(self, type_: str) -> list[bytes]:
        """Return what the broker really stores for a type, read by a group that never was."""
        auditor = await self.member(self.anchor, type_, f"audit-{new_instance()}", window=10_000)
        found: list[bytes] = []
        while batch := await self.wait(auditor.receive(1000, max(0.15, self.scaled(0.5)))):
            found += [delivery.body for delivery in batch]
            await auditor.settle([Settle(delivery, Ack()) for delivery in batch])
        await auditor.close()
        return found

    def completion(self, type_: str, message_id: str, group: str = "workers") -> Completion:
        """Return the key of a completion record."""
        return Completion(self.namespace, group, type_, message_id)

    # ---- the end

    async def close(self) -> None:
        """Close everything, then remove what was made: nobody is left who could make it again.

        Whatever does not end in its time is given up; the rest is done, then `AssertionError`.
        """
        async with contextlib.AsyncExitStack() as last_first:
            last_first.push_async_callback(self._remove)
            last_first.push_async_callback(self.tasks.close)
            for proxy in self._proxies:
                last_first.push_async_callback(proxy.close)
            for transport in self._transports:
                last_first.push_async_callback(self._close, transport)

    async def _close(self, transport: Transport) -> None:
        await self.wait(transport.close(), what="Transport.close")

    async def _remove(self) -> None:
        if not self._reached:
            return
        cleaner = self.harness.make()
        try:
            await self.wait(cleaner.open(self.runtime()), what="Transport.open")
            for namespace in self.namespaces:
                await self.wait(cleaner.remove(namespace), what="Transport.remove")
        except (CatgaError, AssertionError) as error:
            self.harness.left_behind.update(dict.fromkeys(self.namespaces, str(error)))
        finally:
            try:
                await self._close(cleaner)
            finally:
                await self.tasks.close()


def _tapped(plugin: TransportDescriptor, tap: Tap) -> TransportDescriptor:
    make = plugin.factory
    return attrs.evolve(plugin, factory=lambda *parts: TappedTransport(make(*parts), tap))


def accepted(result: PublishResult) -> Receipt:
    """Return the receipt; anything else breaks the law."""
    assert isinstance(result, Receipt), result
    return result
