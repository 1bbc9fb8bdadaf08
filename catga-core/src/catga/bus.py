"""The bus: what an application holds in its hands."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

import attrs
from msgspec.structs import replace

from catga.codecs import TypeRegistry
from catga.engine.addressing import extras_of
from catga.engine.bulk import AfterPublish, Encode, publish_all
from catga.engine.context import CURRENT
from catga.engine.discovery import Discovery
from catga.engine.extras import NOTHING_EXTRA, Extras
from catga.engine.letterbox import DeadLetters
from catga.engine.publishing import receipt_or_raise
from catga.errors import ConfigurationError
from catga.ground.clock import Clock, SystemClock
from catga.ground.tasks import finish
from catga.model.message import Request
from catga.model.node import Node
from catga.model.outcome import Drained, PublishSummary, Receipt
from catga.model.qos import QualityOfService
from catga.model.subject import Subject, check_token
from catga.plan import Plan, described, make_handlers
from catga.plugins import Catalog, installed_catalog
from catga.records import with_records_at
from catga.router import Router
from catga.session import Session
from catga.settings import parse_url, resolve_settings
from catga.spi import Health, Instrument, Middleware, Outgoing, Transport

__all__ = ["Bus", "Parts"]

ResponseT = TypeVar("ResponseT")


@attrs.frozen
class Parts:
    """What a bus is made of besides its settings, to be replaced in tests."""

    clock: Clock = attrs.field(factory=SystemClock)
    catalog: Catalog | None = None
    """None: what is installed."""


class Bus(Router):
    """Publishes messages and runs handlers over one transport, chosen by the URL's scheme.

    An async context manager, used once: entering connects, checks every promise against the
    server, and returns when all subscriptions are confirmed; leaving drains and closes.

    * `service` names this program: the CloudEvents source, and the default of `group`.
    * `namespace` keeps applications on one broker apart.
    * `consume=False` only publishes: handlers are not started.
    * `publishes` are types to check and prepare at the start instead of at their first publish.
    * `inbox` is the URL of another transport, to keep the completion records of QoS 2 there.
    * `node` makes it a node that others see (`bus.discovery`) while it runs: True, or a `Node` that
      describes it. It registers when everything else has started, renews its lease, and leaves
      when the bus drains.
    * `settings` wins over the URL's query, which wins over the environment (`CATGA_...`).

    Raises `ConfigurationError` for a service, group or namespace that cannot stand in a subject.
    """

    def __init__(  # noqa: PLR0913 - each is asked for by its name
        self,
        url: str,
        *,
        service: str,
        group: str | None = None,
        namespace: str = "catga",
        consume: bool = True,
        publishes: Sequence[type] = (),
        inbox: str | None = None,
        node: Node | bool = False,
        settings: Mapping[str, object] | None = None,
        parts: Parts | None = None,
    ) -> None:
        super().__init__()
        self.service = check_token(service, "service")
        self.group = check_token(service if group is None else group, "group")
        self.namespace = check_token(namespace, "namespace")
        self._address, self._query = parse_url(url)
        self._consume = consume
        self._publishes = tuple(publishes)
        self._inbox = inbox
        self._node = described(node, service)
        self._code = dict(settings or {})
        self._middleware: list[Middleware] = []
        self._instruments: list[Instrument] = []
        self._parts = parts or Parts()
        self._clock = self._parts.clock
        self._registry = TypeRegistry()
        self._used = False
        self._session: Session | None = None

    def __repr__(self) -> str:
        state = "new" if not self._used else "closed" if self._session is None else "running"
        words = [self._address.shown, f"service={self.service}", f"group={self.group}", state]
        if self._session is not None and (promise := self._session.plan.promise()):
            words.append(promise)
        return f"<Bus {' '.join(words)}>"

    def use(self, *parts: Middleware | Instrument) -> None:
        """Add middleware (outermost first) and instruments; before the bus is entered."""
        self._check_open()
        for part in parts:
            if isinstance(part, Middleware):
                self._middleware.append(part)
            else:
                self._instruments.append(part)

    # ---- life

    async def __aenter__(self) -> Self:
        """Connect, check, prepare, subscribe."""
        if self._used:
            raise ConfigurationError("a bus is used once: make a new one")
        self._used = self._sealed = True
        plan = self._plan()
        session = Session(plan, self._outgoing)
        self._session = session  # a handler may publish before all others are subscribed
        try:
            await session.start()
        except BaseException:
            self._session = None
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drain within the drain deadline, then close."""
        await finish(self._come_down())

    async def _come_down(self) -> None:
        try:
            await self.drain()
        finally:
            await self.close()

    async def drain(self) -> Drained:
        """Take nothing more in, finish what is in hand, give back the rest; report it.

        Publishing still works afterwards. Idempotent.
        """
        return await self._running().drain() if self._session else Drained(0, 0, 0)

    async def close(self) -> None:
        """Release everything now. Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _plan(self) -> Plan:
        catalog = self._parts.catalog or installed_catalog()
        descriptor = catalog.transport_for(self._address.scheme)
        resolved = resolve_settings(
            descriptor, self._query, os.environ, self._code, others=catalog.settings_names
        )
        settings = resolved.core
        handlers = make_handlers(self.registrations, self._registry, settings, self.group)
        wait = settings.wait_handled
        transport = descriptor.factory(self._address, resolved.transport, resolved.explicit)
        if self._inbox is not None:
            transport = with_records_at(
                self._inbox, transport, descriptor, catalog, settings.accept_risk
            )
        return Plan(
            transport=transport,
            settings=settings,
            wait_handled=descriptor.waits_for_handlers if wait is None else wait,
            clock=self._clock,
            registry=self._registry,
            handlers=handlers if self._consume else (),
            publishes=tuple(self._registry.register(cls) for cls in self._publishes),
            middleware=(*(make() for make in catalog.middleware), *self._middleware),
            instruments=(*(make() for make in catalog.instruments), *self._instruments),
            service=self.service,
            namespace=self.namespace,
            node=self._node,
            transport_name=descriptor.name,
        )

    def _running(self) -> Session:
        if self._session is None:
            raise ConfigurationError("the bus is not running: use it inside `async with bus:`")
        return self._session

    # ---- publishing

    async def publish(
        self,
        message: Any,
        *,
        qos: QualityOfService | None = None,
        message_id: str | None = None,
        correlation_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
    ) -> Receipt:
        """Send an event to every group that handles its type.

        At QoS 0 returns once the bytes are handed over; at QoS 1 and 2 once they are stored (in
        memory: handled). The same object, or the same `message_id`, is the same message. Inside a
        handler at QoS 2 a new message gets an id derived from the handled one, its group and how
        many were made before it, so that a re-run publishes nothing new: what is published there
        must come in the same order in each run, or carry a `message_id` of its own.

        Raises `PublishRejected` (surely not stored; `PayloadTooLarge` among them),
        `PublishUnknown`, `ConnectionLost`, `EncodeError`, `CapabilityError` and
        `ConfigurationError`. Cancelled: it may have been stored.
        """
        extras = extras_of(self._clock, message_id, correlation_id, headers, delay, at)
        return await self._send(message, qos, "", extras)

    async def send(
        self,
        message: Any,
        *,
        to: str,
        qos: QualityOfService | None = None,
        message_id: str | None = None,
        correlation_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
    ) -> Receipt:
        """Send a message to one group only. As `publish` in everything else."""
        check_token(to, "destination")
        extras = extras_of(self._clock, message_id, correlation_id, headers, delay, at)
        return await self._send(message, qos, to, extras)

    async def _send(
        self, message: Any, qos: QualityOfService | None, to: str, extras: Extras
    ) -> Receipt:
        session = self._running()
        route = session.addresser.route(type(message), qos, to)
        if extras is NOTHING_EXTRA and route.declared and session.on_publish is None:
            outgoing = route.outgoing(message)  # almost every message
        else:
            outgoing = await self._outgoing(message, qos, to, extras)
        receipt = receipt_or_raise(await session.publisher.publish(outgoing))
        at_once = outgoing.subject.durable and outgoing.not_before is None
        if at_once and (wait := self._waiter(session)) is not None:
            await wait([(outgoing, receipt)])
        return receipt

    async def publish_many(
        self, messages: Iterable[Any], *, qos: QualityOfService | None = None
    ) -> PublishSummary:
        """Publish each message, with a bounded number in flight; read `messages` as there is room.

        Returns the counts and each failure with its position; one failure does not stop the rest.
        """
        session = self._running()

        def writer_of(cls: type) -> Encode | None:
            route = session.addresser.route(cls, qos)
            return route.outgoing if route.declared and session.on_publish is None else None

        async def prepare(message: Any) -> Outgoing:
            return await self._outgoing(message, qos, "", NOTHING_EXTRA)

        return await publish_all(
            session.publisher,
            session.tasks,
            messages,
            writer_of,
            prepare,
            after=self._waiter(session),
            window=session.plan.settings.publish_window,
        )

    def _waiter(self, session: Session) -> AfterPublish | None:
        """Return what waits for the handlers of a publish; never inside a handler."""
        return session.wait_handled if session.wants_waiting and CURRENT.get() is None else None

    async def _outgoing(
        self, message: Any, qos: QualityOfService | None, to: str, extras: Extras
    ) -> Outgoing:
        session = self._running()
        route = session.addresser.route(type(message), qos, to)
        if extras.not_before is not None and route.subject.durable:
            session.require_delay(route.wire)
        if not route.declared:
            await session.declare(route.wire, route.qos)
            route.declared = True
        if session.on_publish is not None:
            headers = dict(extras.headers or {})
            await session.on_publish(message, headers)
            extras = replace(extras, headers=headers)
        return route.outgoing(message, extras)

    # ---- asking

    async def request(
        self,
        request: Request[ResponseT],
        *,
        to: str | None = None,
        timeout: float | None = None,
        qos: QualityOfService | None = None,
        message_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> ResponseT:
        """Send a request to the one group that answers it, and return the response.

        `to` is that group (default: this bus's own); `timeout` is in seconds.

        Raises `RemoteError` when the handler failed (at QoS 1 and 2: in its last attempt),
        `NoResponders` where the transport can tell that nobody listens, `RequestTimeout` when no
        response came in time (at QoS 1 and 2 the outcome is unknown then: it may still be
        handled), `DecodeError` when the response is not what the request declares,
        `ConfigurationError` for a message that is no `Request`, and what `publish` raises.
        Cancelled: the request may still be handled.
        """
        session = self._running()
        wire = self._registry.request(type(request))
        seconds = self._timeout(timeout)
        group = self.group if to is None else check_token(to, "destination")
        deadline = self._clock.now() + timedelta(seconds=seconds)

        async def make(address: Subject) -> Outgoing:
            extras = Extras(message_id, headers=headers, reply_to=address, deadline=deadline)
            return await self._outgoing(request, qos, group, extras)

        data = await session.requester.ask(session.publisher, make, seconds)
        result: ResponseT = wire.decode_response(data)
        return result

    def _timeout(self, timeout: float | None) -> float:
        if timeout is None:
            return self._running().plan.settings.request_timeout.total_seconds()
        if timeout <= 0:
            raise ConfigurationError("the timeout of a request must be above 0 seconds")
        return timeout

    # ---- looking

    @property
    def transport(self) -> Transport:
        """The open transport, for tools that administer the broker."""
        return self._running().plan.transport

    @property
    def discovery(self) -> Discovery:
        """Who else is there; what this bus is itself, if anything.

        Raises `CapabilityError` when the transport has no discovery.
        """
        return self._running().discovery

    @property
    def dead_letters(self) -> DeadLetters:
        """What groups of the namespace gave up on: to find, replay and remove.

        Raises `CapabilityError` when the transport cannot show them.
        """
        return self._running().dead_letters

    async def health(self) -> Health:
        """Ask the server, now, whether messages can move."""
        return await self.transport.health()

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Return what became of deliveries so far, by `group/type`.

        The books balance at every moment: `received` = `ack` + `nack` (it comes again) +
        `dead-letter` + `lost` (its lease: another has it) + `unknown` (the settlement may have
        taken effect; else it comes again) + `dropped` (QoS 0: not handled) + `in-hand`.

        Beside them stand the reasons: `handled` and `failed` are calls of the handler that
        returned and raised; `poison` could not be read; of `expired` the requester had given up.
        A count that is 0 may be missing.
        """
        consumers = self._session.consumers if self._session else ()
        return {consumer.name: consumer.books() for consumer in consumers}
