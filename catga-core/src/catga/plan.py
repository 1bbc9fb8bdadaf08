"""The plan of a bus: everything it is made from, and whether its promises can be kept."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from catga.codecs import TypeRegistry, WireType
from catga.engine.elsewhere import RecordsElsewhere
from catga.engine.handling import Handler, check_handlers
from catga.errors import CapabilityError, ConfigurationError
from catga.ground.clock import Clock
from catga.ground.ids import new_instance
from catga.model.capability import QOS_CAPABILITY, Capability
from catga.model.node import Node
from catga.model.qos import QualityOfService
from catga.policy import CRASH_MARGIN, Retries, broken_horizons, combine, exactly_once_words
from catga.router import Registration, Unset
from catga.settings import Settings
from catga.spi import Instrument, Middleware, Source, Transport

__all__ = ["Plan", "described", "make_handlers"]


@attrs.frozen(eq=False)
class Plan:
    """Everything a session is made from."""

    transport: Transport
    settings: Settings
    wait_handled: bool
    clock: Clock
    registry: TypeRegistry
    handlers: tuple[Handler, ...]
    publishes: tuple[WireType, ...]
    middleware: tuple[Middleware, ...]
    instruments: tuple[Instrument, ...]
    service: str
    namespace: str
    node: Node | None = None
    """What the bus registers itself as."""
    transport_name: str = ""

    def qos_of(self, wire: WireType) -> QualityOfService:
        """Return the quality a type is sent with unless the call says otherwise."""
        return self.settings.default_qos if wire.qos is None else wire.qos

    def highest(self) -> QualityOfService:
        """Return the strictest quality among what is published and handled here."""
        published = (self.qos_of(wire) for wire in self.publishes)
        handled = (handler.qos for handler in self.handlers)
        return max((*published, *handled), default=QualityOfService.AT_MOST_ONCE)

    def promise(self) -> str:
        """Return what exactly once means here, in one line; empty when nothing asks for it.

        The server must be connected: it decides about the mode.
        """
        if self.highest() is not QualityOfService.EXACTLY_ONCE:
            return ""
        return exactly_once_words(
            atomic=Capability.ATOMIC in self.transport.capabilities,
            transport=self.transport_name,
            records=self.transport.shown if isinstance(self.transport, RecordsElsewhere) else "",
            window=self.settings.window,
            ttl=self.settings.completion_ttl.total_seconds(),
        )

    def sources(self, handler: Handler) -> tuple[Source, ...]:
        """Return what a handler subscribes to: what is live and, from QoS 1, what is stored.

        On a transport that only stores there is nothing live to listen to.
        """
        settings = self.settings
        live = Source(self.namespace, handler.wire.name, handler.group)
        if handler.qos is QualityOfService.AT_MOST_ONCE:
            return (live,)
        log = attrs.evolve(
            live,
            group=handler.group or new_instance(),
            durable=True,
            ephemeral=not handler.group,
            start=handler.start,
            window=settings.prefetch,
            lease=settings.lease.total_seconds(),
            attempts=handler.retries.most,
        )
        has_live = Capability.AT_MOST_ONCE in self.transport.capabilities
        return (live, log) if has_live else (log,)

    def check_promises(self) -> None:
        """Raise `CapabilityError` for what the connected server or the settings cannot keep."""
        self._check_capabilities()
        if self.highest() is QualityOfService.EXACTLY_ONCE:
            self.check_horizons()

    def _check_capabilities(self) -> None:
        capabilities = self.transport.capabilities
        if self.settings.dedupe_window is None:
            capabilities.require(Capability.FOREVER, "dedupe_window=none")
        if self.node is not None:
            capabilities.require(Capability.DISCOVERY, "node=…")
        for handler in self.handlers:
            who = f"the handler {handler.name} of {handler.wire.name}"
            capabilities.require(QOS_CAPABILITY[handler.qos], who)
            if handler.group and Capability.AT_MOST_ONCE in capabilities:
                capabilities.require(Capability.LIVE_GROUPS, who)
        for wire in self.publishes:
            capabilities.require(QOS_CAPABILITY[self.qos_of(wire)], f"publishing {wire.name}")

    def check_horizons(self) -> None:
        """Raise `CapabilityError` when W and D are too short for exactly once."""
        settings = self.settings
        limit = settings.lease_limit.total_seconds()
        rules = [_settled(settings), *(handler.retries for handler in self.handlers)]
        broken = broken_horizons(
            dedupe_window=settings.window,
            publish_deadline=settings.publish_deadline.total_seconds(),
            completion_ttl=settings.completion_ttl.total_seconds(),
            attempts=max(each.most for each in rules) + CRASH_MARGIN,
            backoff_cap=max(each.longest for each in rules),
            lease=settings.lease.total_seconds(),
            attempt=max(
                (min(limit, handler.timeout or limit) for handler in self.handlers), default=0.0
            ),
            retention=settings.retention.total_seconds(),
        )
        for name, reason in broken.items():
            if name not in settings.accept_risk:
                raise CapabilityError(f'{reason}: make it longer (or accept_risk=["{name}"])')


def make_handlers(
    registrations: Sequence[Registration],
    registry: TypeRegistry,
    settings: Settings,
    group: str,
) -> tuple[Handler, ...]:
    """Fill in what the declarations left open. Raises `ConfigurationError` on a clash."""
    handlers = []
    for one in registrations:
        wire = registry.register(one.cls)
        handlers.append(
            Handler(
                wire=wire,
                function=one.function,
                wants_context=one.wants_context,
                group="" if one.broadcast else one.group or group,
                qos=settings.default_qos if wire.qos is None else wire.qos,
                concurrency=one.concurrency or settings.concurrency,
                start=one.start,
                retries=_rules(one, wire, settings),
                timeout=_seconds(one, settings),
            )
        )
    check_handlers(handlers)
    return tuple(handlers)


def _settled(settings: Settings) -> Retries:
    base, cap = settings.backoff_base.total_seconds(), settings.backoff_cap.total_seconds()
    return Retries(settings.attempts, base, cap)


def _rules(one: Registration, wire: WireType, settings: Settings) -> Retries:
    """The handler speaks before the type, that before the settings."""
    try:
        return combine(_settled(settings), wire.retry, one.retry)
    except ConfigurationError as error:
        name = getattr(one.function, "__qualname__", repr(one.function))
        raise ConfigurationError(f"the handler {name} of {wire.name}: {error}") from None


def _seconds(one: Registration, settings: Settings) -> float | None:
    limit = settings.handler_timeout if isinstance(one.timeout, Unset) else one.timeout
    return None if limit is None else limit.total_seconds()


def described(node: Node | bool, service: str) -> Node | None:
    """Return what a bus of this service registers itself as."""
    if node is True:
        return Node(service=service)
    if isinstance(node, Node):
        return node if node.service else attrs.evolve(node, service=service)
    if node is False:
        return None
    raise ConfigurationError(f"node is True, False or a Node, not {type(node).__name__}")
