"""One running bus: what was assembled at start-up, and how it comes down again."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence

import attrs

from catga.codecs import WireType
from catga.engine.addressing import Addresser
from catga.engine.consuming import Consumer
from catga.engine.discovery import Discovery, NodePace
from catga.engine.handling import OnPublish, compile_call, compile_publish
from catga.engine.letterbox import DeadLetters
from catga.engine.publishing import Publisher
from catga.engine.requests import Requester, Responder
from catga.engine.services import Services
from catga.engine.signals import Signals
from catga.engine.transaction import Encode
from catga.engine.wording import tell_of
from catga.errors import CapabilityError
from catga.ground.ids import new_instance
from catga.ground.tasks import TaskOwner, finish
from catga.model.capability import QOS_CAPABILITY, Capability
from catga.model.outcome import Drained
from catga.model.qos import QualityOfService
from catga.plan import Plan
from catga.spi import (
    EventKind,
    Mode,
    Outgoing,
    Receipt,
    Runtime,
    Source,
    Subscription,
    Topology,
    TransportEvent,
)

__all__ = ["Session"]

_log = logging.getLogger("catga")
_LOWEST = QualityOfService.AT_MOST_ONCE
_LAST_WORDS = 1.0
"""Seconds that responses on their way out may still take when the bus closes."""
_LOUD = frozenset({EventKind.GAP, EventKind.SLOW_CONSUMER, EventKind.RISK, EventKind.TROUBLE})


class Session:
    """Opens the transport, starts the consumers, and takes everything down in order."""

    def __init__(self, plan: Plan, encode: Encode) -> None:
        settings = plan.settings
        self._encode = encode
        self.plan = plan
        self.instance = new_instance()
        self.tasks = TaskOwner()
        self.signals = Signals(plan.instruments)
        self._closed = False
        self._drained: Drained | None = None
        self._declared: set[tuple[str, QualityOfService]] = set()
        self._strictest = plan.highest()
        self._on_publish = compile_publish(plan.middleware)
        self._discovery: Discovery | None = None
        self.consumers: list[Consumer] = []
        self.addresser = Addresser(
            plan.registry, plan.namespace, plan.service, settings.default_qos
        )
        self.publisher = Publisher(
            plan.transport,
            plan.clock,
            self.tasks,
            window=settings.publish_window,
            deadline=settings.publish_deadline.total_seconds(),
            signals=self.signals,
            random=random.random,
        )
        self.requester = Requester(
            plan.transport,
            plan.registry.codec,
            plan.clock,
            self.tasks,
            plan.namespace,
            self.instance,
        )

    async def start(self) -> None:
        """Connect, check every promise, prepare, subscribe. On failure nothing stays open."""
        try:
            await self._start()
        except BaseException:
            await finish(self.close())
            raise

    async def _start(self) -> None:
        plan = self.plan
        await plan.transport.open(
            Runtime(
                clock=plan.clock,
                spawn=self.tasks.spawn,
                emit=self._heard,
                instance=self.instance,
                service=plan.service,
                connect_deadline=plan.settings.connect_deadline.total_seconds(),
            )
        )
        plan.check_promises()
        sources = {handler: plan.sources(handler) for handler in plan.handlers}
        durable = [source for group in sources.values() for source in group if source.durable]
        published = {wire.name: plan.qos_of(wire) for wire in plan.publishes}
        if plan.highest() > _LOWEST:
            stored = [name for name, qos in published.items() if qos > _LOWEST]
            await self._prepare(durable, stored, plan.highest())
        self._declared.update(published.items())
        services = self._services()
        for handler in plan.handlers:
            call = compile_call(handler, plan.middleware)
            self.consumers.append(Consumer(handler, call, services))
        await asyncio.gather(
            *(consumer.start(sources[consumer.handler]) for consumer in self.consumers)
        )
        if promise := plan.promise():
            _log.info("%s of %s: %s", plan.service, plan.namespace, promise)
        self.tasks.spawn(self._sweep(), "sweep leases and timeouts")
        if plan.node is not None:
            await self.discovery.take_over(plan.node)  # last: who sees it may count on it
            self.tasks.spawn(self.discovery.keep(), "heartbeats of the node")

    @property
    def discovery(self) -> Discovery:
        """The nodes of the namespace. Raises `CapabilityError` when the transport has none."""
        if self._discovery is None:
            plan, settings = self.plan, self.plan.settings
            plan.transport.capabilities.require(Capability.DISCOVERY, "seeing nodes")
            ttl = settings.node_ttl.total_seconds()
            beat = settings.node_heartbeat
            pace = NodePace(ttl, ttl / 3 if beat is None else beat.total_seconds())
            mode = Mode.CREATE if settings.create else Mode.VERIFY
            store = plan.transport.node_store(plan.namespace, ttl, mode)
            self._discovery = Discovery(store, plan.clock, pace, self.instance, emit=self._heard)
        return self._discovery

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters of the namespace. Raises `CapabilityError` when they cannot be seen."""
        plan = self.plan
        plan.transport.capabilities.require(Capability.DEAD_LETTERS, "looking at dead letters")
        store = plan.transport.dead_letters
        if store is None:
            raise CapabilityError("the transport shows no dead letters")
        return DeadLetters(plan.namespace, store, self.publisher.send, self._verify)

    async def _verify(self, source: Source) -> None:
        """Raise `ConfigurationError` when this group is not there."""
        source = attrs.evolve(source, lease=self.plan.settings.lease.total_seconds())
        topology = self._topology([source], [], QualityOfService.AT_LEAST_ONCE)
        await self.plan.transport.prepare(topology, Mode.VERIFY)

    def _services(self) -> Services:
        plan, settings = self.plan, self.plan.settings
        return Services(
            transport=plan.transport,
            publisher=self.publisher,
            responder=Responder(
                self.publisher,
                plan.registry.codec,
                plan.clock,
                plan.service,
                lambda: plan.transport.max_payload_bytes,
            ),
            clock=plan.clock,
            tasks=self.tasks,
            signals=self.signals,
            random=random.random,
            service=plan.service,
            window=settings.prefetch,
            lease_limit=settings.lease_limit.total_seconds(),
            encode=self._encode,
            emit=self._heard,
            resubscribe=self._resubscribe,
            be_exact=self._be_exact,
        )

    @property
    def wants_waiting(self) -> bool:
        """Whether publishing waits for the handlers, and the transport can tell."""
        plan = self.plan
        return plan.wait_handled and Capability.HANDLED in plan.transport.capabilities

    @property
    def on_publish(self) -> OnPublish | None:
        """What middleware does before a message is encoded, or None when none does anything."""
        return self._on_publish

    async def declare(self, wire: WireType, qos: QualityOfService) -> None:
        """Check a type before its first publish; costs round trips once, and none at QoS 0."""
        if (wire.name, qos) in self._declared:
            return
        who = f"publishing {wire.name}"
        self.plan.transport.capabilities.require(QOS_CAPABILITY[qos], who)
        if qos is QualityOfService.EXACTLY_ONCE:
            self.plan.check_horizons()
        if qos > QualityOfService.AT_MOST_ONCE:
            await self._prepare([], [wire.name], qos)
        self._declared.add((wire.name, qos))

    def require_delay(self, wire: WireType) -> None:
        """Raise `CapabilityError` where nothing can be held back until its time."""
        capabilities = self.plan.transport.capabilities
        capabilities.require(Capability.DELAY, f"publishing {wire.name} for later")

    async def _prepare(
        self, sources: Sequence[Source], publishes: Sequence[str], qos: QualityOfService
    ) -> None:
        mode = Mode.CREATE if self.plan.settings.create else Mode.VERIFY
        await self.plan.transport.prepare(self._topology(sources, publishes, qos), mode)

    def _topology(
        self, sources: Sequence[Source], publishes: Sequence[str], qos: QualityOfService
    ) -> Topology:
        settings = self.plan.settings
        return Topology(
            namespace=self.plan.namespace,
            publishes=tuple(publishes),
            sources=tuple(sources),
            qos=qos,
            dedupe_window=settings.window,
            completion_ttl=settings.completion_ttl.total_seconds(),
            retention=settings.retention.total_seconds(),
            accept_risk=settings.accept_risk,
        )

    async def _resubscribe(self, source: Source) -> Subscription:
        await self._prepare([source], [], self._strictest)
        return await self.plan.transport.subscribe(source)

    async def _be_exact(self, source: Source) -> None:
        if self.plan.highest() is not QualityOfService.EXACTLY_ONCE:  # else it is done
            self.plan.check_horizons()
            await self._prepare([source], [], QualityOfService.EXACTLY_ONCE)
            self._strictest = QualityOfService.EXACTLY_ONCE

    async def wait_handled(self, stored: Sequence[tuple[Outgoing, Receipt]]) -> None:
        """Wait until every group has handled or parked these, at most the publish deadline."""
        waiting = asyncio.ensure_future(self.plan.transport.wait_handled(stored))

        def expire() -> None:
            waiting.cancel()

        seconds = self.plan.settings.publish_deadline.total_seconds()
        timer = self.plan.clock.call_later(seconds, expire)
        try:
            await asyncio.wait((waiting,))
        finally:
            timer.cancel()
            waiting.cancel()
        if not waiting.cancelled() and (error := waiting.exception()) is not None:
            _log.warning("it cannot be told whether all of it was handled: %r", error)

    def _heard(self, event: TransportEvent) -> None:
        level = logging.WARNING if event.kind in _LOUD else logging.INFO
        _log.log(level, "%s: %s", event.kind.value, event.detail)

    async def _sweep(self) -> None:
        settings = self.plan.settings
        shortest = settings.lease.total_seconds() / 3
        for handler in self.plan.handlers:
            if handler.timeout is not None:
                shortest = min(shortest, handler.timeout / 2)
        tick = min(1.0, max(0.02, shortest / 2))
        while True:
            await self.plan.clock.sleep(tick)
            now = self.plan.clock.monotonic()
            for consumer in self.consumers:
                consumer.sweep(now)

    async def drain(self) -> Drained:
        """Stop taking in, finish what is in hand, give back the rest. Idempotent."""
        if self._drained is None:
            timeout = self.plan.settings.drain_deadline.total_seconds()
            draining = asyncio.gather(*(one.drain(timeout) for one in self.consumers))
            parts, _ = await asyncio.gather(draining, self._leave())
            self._drained = Drained(
                sum(part.handled for part in parts),
                sum(part.returned for part in parts),
                sum(part.abandoned for part in parts),
            )
        return self._drained

    async def _leave(self) -> None:
        """Tell the other nodes that nothing more is taken in here."""
        try:
            if self._discovery is not None:
                await self._discovery.deregister()
        except Exception as error:
            told = tell_of(error, "saying good-bye met what nobody foresaw")
            words = f"the node could not say good-bye, it is seen until its lease ends: {told}"
            self._heard(TransportEvent(EventKind.TROUBLE, words))

    async def close(self) -> None:
        """Release everything now. Idempotent, safe after a failed start."""
        if self._closed:
            return
        self._closed = True
        for consumer in self.consumers:
            consumer.leave()
        await self.publisher.flush(_LAST_WORDS)
        self.publisher.close()
        for step in (self.requester.close, self.plan.transport.close, self.tasks.close):
            try:
                await step()
            except Exception as error:
                tell_of(error, "closing met what nobody foresaw")
