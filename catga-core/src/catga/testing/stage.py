"""The stage of one law: transports on one broker, in a namespace of their own, all closed after."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from catga.bus import Bus, Parts
from catga.errors import CatgaError
from catga.ground.clock import ManualClock, settle_loop
from catga.ground.ids import new_instance, new_message_id
from catga.ground.tasks import TaskOwner
from catga.model.qos import QualityOfService
from catga.spi import (
    Ack,
    Completion,
    Delivery,
    Kind,
    Mode,
    Outgoing,
    PublishResult,
    Receipt,
    Runtime,
    Settle,
    SettleResult,
    Source,
    Start,
    Subject,
    Subscription,
    Topology,
    Transport,
    TransportEvent,
)

if TYPE_CHECKING:
    from catga.testing.harness import Harness

__all__ = ["Stage"]

_STEP = 0.02
_WINDOW = 600.0
_TTL = 3600.0


class Stage:
    """What a law acts with. Seconds are the law's; the harness says how long they really take."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.clock = harness.clock()
        self.namespace = f"law-{new_instance()}"
        self.lease = 2.0 * harness.time_scale
        self.events: list[TransportEvent] = []
        self.tasks = TaskOwner()
        self._transports: list[Transport] = []

    # ---- time

    def scaled(self, seconds: float) -> float:
        """Return how long `seconds` of the law really take."""
        return seconds * self.harness.time_scale

    async def pass_time(self, seconds: float) -> None:
        """Let `seconds` of the law go by."""
        if isinstance(self.clock, ManualClock):
            await self.clock.advance(self.scaled(seconds))
            await settle_loop()
        else:
            await self.clock.sleep(self.scaled(seconds))

    async def until(self, condition: Callable[[], Any], seconds: float = 20.0) -> None:
        """Wait until `condition` holds; `AssertionError` after `seconds`, never scaled down."""
        waited = 0.0
        while not condition():
            assert waited < seconds, "the condition was never met"
            if isinstance(self.clock, ManualClock):
                await self.clock.advance(_STEP)
            else:
                await self.clock.sleep(_STEP)
            waited += _STEP

    # ---- parts

    async def transport(self, url: str | None = None, **settings: object) -> Transport:
        """Return another open transport of the same broker: another process, as it were."""
        transport = self.harness.make(url, **settings)
        self._transports.append(transport)
        await transport.open(
            Runtime(
                clock=self.clock,
                spawn=self.tasks.spawn,
                emit=self.events.append,
                instance=new_instance(),
                service="law",
                connect_deadline=5.0,
            )
        )
        return transport

    def source(self, type_: str, group: str = "workers", **more: Any) -> Source:
        """Return a durable source of this stage; `durable=False` makes it live."""
        given = {"durable": True, "lease": self.lease, "start": Start.BEGINNING, **more}
        return Source(self.namespace, type_, group, **given)

    def topology(
        self, *sources: Source, publishes: Sequence[str] = (), qos: int = 2, **more: Any
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
        qos = 1 if source.durable else 0
        if QualityOfService.EXACTLY_ONCE.name and self.offers_exactly_once and source.durable:
            qos = 2
        if source.durable:
            await transport.prepare(self.topology(source, qos=qos), Mode.CREATE)
        return await transport.subscribe(source)

    @property
    def offers_exactly_once(self) -> bool:
        """Whether the transport declares QoS 2."""
        return "exactly-once" in self.harness.declared

    def bus(self, *, settings: dict[str, object] | None = None, **more: Any) -> Bus:
        """Return a bus on the same broker and in the same namespace."""
        given = {
            "lease": self.lease,
            "backoff_base": self.scaled(0.2),
            "backoff_cap": self.scaled(1.0),
            "wait_handled": False,
            **self.harness.settings,
            **(settings or {}),
        }
        arguments: dict[str, Any] = {"service": "law", "namespace": self.namespace, **more}
        parts = Parts(clock=self.clock, catalog=self.harness.catalog)
        return Bus(self.harness.url, settings=given, parts=parts, **arguments)

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

    async def store(self, transport: Transport, *batch: Outgoing) -> list[Receipt]:
        """Publish; every result must be a receipt."""
        await transport.prepare(
            self.topology(
                publishes=sorted({outgoing.subject.type for outgoing in batch}),
                qos=max(outgoing.qos for outgoing in batch),
            ),
            Mode.CREATE,
        )
        results = await transport.publish(batch)
        return [accepted(result) for result in results]

    async def receive(
        self, subscription: Subscription, count: int, seconds: float = 20.0
    ) -> list[Delivery]:
        """Receive exactly `count` deliveries."""
        found: list[Delivery] = []

        async def read() -> None:
            while len(found) < count:
                found.extend(await subscription.receive(count - len(found), 0.5))

        task = self.tasks.spawn(read(), "receive")
        await self.until(task.done, seconds)
        task.result()
        return found

    async def nothing(self, subscription: Subscription, seconds: float = 0.5) -> None:
        """Assert that nothing comes for a while."""
        task = self.tasks.spawn(subscription.receive(10, self.scaled(seconds)), "receive nothing")
        await self.until(task.done)
        assert task.result() == [], "nothing more should have come"

    async def settle(
        self, subscription: Subscription, delivery: Delivery, outcome: Any = None
    ) -> SettleResult:
        """Settle one delivery (acknowledge, unless told otherwise), confirmed."""
        given = Ack() if outcome is None else outcome
        return (await subscription.settle([Settle(delivery, given, confirm=True)]))[0]

    async def copies(self, type_: str) -> list[bytes]:
        """Return what the broker really stores for a type, read by a group that never was."""
        transport = await self.transport()
        auditor = await self.member(transport, type_, f"audit-{new_instance()}", window=10_000)
        found: list[bytes] = []
        while True:
            task = self.tasks.spawn(auditor.receive(1000, 0.3), "audit")
            await self.until(task.done)
            if not task.result():
                return found
            found += [delivery.body for delivery in task.result()]
            await auditor.settle([Settle(delivery, Ack()) for delivery in task.result()])

    def completion(self, type_: str, message_id: str, group: str = "workers") -> Completion:
        """Return the key of a completion record."""
        return Completion(self.namespace, group, type_, message_id)

    # ---- the end

    async def close(self) -> None:
        """Remove the namespace and close every transport."""
        if self._transports:
            with contextlib.suppress(CatgaError):
                cleaner = await self.transport()
                await cleaner.remove(self.namespace)
        for transport in self._transports:
            await transport.close()
        await self.tasks.close()


def accepted(result: PublishResult) -> Receipt:
    """Return the receipt; anything else breaks the law."""
    assert isinstance(result, Receipt), result
    return result
