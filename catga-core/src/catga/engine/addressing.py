"""From a typed message to what a transport is handed: quality, subject, identity, envelope."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from catga.codecs import EventWriter, TypeRegistry, WireType
from catga.engine.context import CURRENT, Context
from catga.engine.extras import NOTHING_EXTRA, Extras
from catga.errors import ConfigurationError
from catga.ground.clock import Clock
from catga.ground.durations import duration
from catga.model.envelope import check_headers
from catga.model.message import Moment, identify
from catga.model.qos import QualityOfService
from catga.model.subject import Kind, Subject, check_token
from catga.spi import Outgoing

__all__ = ["Addresser", "Route", "due_time", "extras_of"]


def due_time(
    delay: timedelta | float | None, at: datetime | None, now: datetime
) -> datetime | None:
    """Return when a message is due, or None when that is now or was before.

    Raises `ConfigurationError` for both at once, for a time without a zone, and for what is no
    time.
    """
    if delay is None and at is None:
        return None
    if delay is not None and at is not None:
        raise ConfigurationError("`delay` and `at` both say when: give one of the two")
    if at is None:
        try:
            due = now + duration(0.0 if delay is None else delay)
        except (ValueError, OverflowError) as error:
            raise ConfigurationError(f"the delay of a message {error}") from None
        return due if due > now else None
    if not isinstance(at, datetime) or at.tzinfo is None or at.utcoffset() is None:
        raise ConfigurationError(
            f"`at` must be a datetime with a time zone (such as datetime.now(UTC)), not {at!r}"
        )
    return at.astimezone(UTC) if at > now else None


def extras_of(
    clock: Clock,
    message_id: str | None,
    correlation_id: str | None,
    headers: Mapping[str, str] | None,
    delay: timedelta | float | None,
    at: datetime | None,
) -> Extras:
    """Return what a call adds. Raises `ConfigurationError` for a time that is none."""
    if delay is None and at is None:
        if message_id is None and correlation_id is None and headers is None:
            return NOTHING_EXTRA
        return Extras(message_id, correlation_id, headers)
    due = due_time(delay, at, clock.now())
    return Extras(message_id, correlation_id, headers, not_before=due)


class Route:
    """Where the messages of one type go at one quality, and how they are written."""

    __slots__ = ("_write", "declared", "qos", "subject", "wire")

    def __init__(
        self, wire: WireType, qos: QualityOfService, subject: Subject, service: str
    ) -> None:
        self.wire = wire
        self.qos = qos
        self.subject = subject
        self.declared = False
        """Whether the type was checked and prepared for publishing at this quality."""
        self._write = EventWriter(wire, service, qos).write

    def outgoing(
        self, message: Any, extras: Extras = NOTHING_EXTRA, moment: Moment | None = None
    ) -> Outgoing:
        """Encode one message; `moment`: that of those which are encoded together.

        Raises `EncodeError`, and `ConfigurationError` for an id or header that cannot travel, and
        for a delay of what is not stored; nothing was sent then.
        """
        current = CURRENT.get()
        if current is None and extras is NOTHING_EXTRA:  # almost every message
            identity = identify(message, moment)
            id_ = identity.message_id
            body = self._write(message, id_, identity.created_at, identity.correlation_id)
            return Outgoing(self.subject, body, id_, self.qos)
        return self._outgoing(message, extras, None if current is None else current.context)

    def _outgoing(self, message: Any, extras: Extras, current: Context | None) -> Outgoing:
        headers, reply_to, not_before = extras.headers, extras.reply_to, extras.not_before
        if headers:
            check_headers(headers)
        if not_before is not None and not self.subject.durable:
            raise ConfigurationError(
                f"{self.wire.name} is sent at QoS 0, where nothing is stored: it cannot be delayed"
            )
        correlation_id, parent_id = extras.correlation_id, None
        if current is not None:
            correlation_id = correlation_id or current.correlation_id or current.message_id
            parent_id = current.message_id if current.exactly_once else None
        identity = identify(message, message_id=extras.message_id, correlation_id=correlation_id)
        body = self._write(
            message,
            identity.message_id,
            identity.created_at,
            identity.correlation_id,
            reply_to=None if reply_to is None else reply_to.text,
            deadline=extras.deadline,
            parent_id=parent_id,
            headers=headers,
        )
        stored_as = identity.message_id
        if reply_to is not None and self.qos is QualityOfService.AT_LEAST_ONCE:
            # Asking again must be handled again: the first answer went to an address of its own.
            stored_as = f"{stored_as}/{reply_to.group}/{reply_to.type}"
        return Outgoing(self.subject, body, stored_as, self.qos, reply_to, not_before)


class Addresser:
    """Knows the routes of one bus; each is checked and made once, and kept."""

    def __init__(
        self,
        registry: TypeRegistry,
        namespace: str,
        service: str,
        default_qos: QualityOfService,
    ) -> None:
        self._registry = registry
        self._namespace = namespace
        self._service = service
        self._default_qos = default_qos
        self._routes: dict[tuple[type, QualityOfService | None, str], Route] = {}

    def route(self, cls: type, asked: QualityOfService | None, to: str = "") -> Route:
        """Return the route of a class's messages to everybody, or to one group.

        Among QoS 1 and 2 a call may choose freely, and it may go down to 0. Raises
        `ConfigurationError` when it asks for more of a type that is sent at QoS 0, where nobody
        would be listening durably, for a bad group, and for what cannot be a message.
        """
        route = self._routes.get((cls, asked, to))
        if route is None:
            route = self._routes[cls, asked, to] = self._make(cls, asked, to)
        return route

    def _make(self, cls: type, asked: QualityOfService | None, to: str) -> Route:
        wire = self._registry.of(cls)
        qos = self._quality(wire, asked)
        if to:
            check_token(to, "destination")
        if qos is QualityOfService.AT_MOST_ONCE:
            kind = Kind.LIVE_TO if to else Kind.LIVE
        else:
            kind = Kind.TO if to else Kind.LOG
        subject = Subject(self._namespace, kind, wire.name, to)
        return Route(wire, qos, subject, self._service)

    def _quality(self, wire: WireType, asked: QualityOfService | None) -> QualityOfService:
        declared = self._default_qos if wire.qos is None else wire.qos
        if asked is None:
            return declared
        if asked > declared and declared is QualityOfService.AT_MOST_ONCE:
            raise ConfigurationError(
                f"{wire.name} is sent at QoS 0 and cannot be published at QoS {int(asked)}: its "
                "handlers do not listen durably; declare the quality on the class"
            )
        return QualityOfService(asked)
