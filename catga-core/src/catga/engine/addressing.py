"""From a typed message to what a transport is handed: quality, subject, identity, envelope."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from catga.codecs import WireType, write_message
from catga.engine.context import CURRENT
from catga.engine.extras import NOTHING_EXTRA, Extras
from catga.errors import ConfigurationError
from catga.ground.durations import duration
from catga.model.envelope import check_headers
from catga.model.message import identify
from catga.model.qos import QualityOfService
from catga.model.subject import Kind, Subject, check_token
from catga.spi import Outgoing

__all__ = ["Addresser", "due_time"]


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


class Addresser:
    """Builds outgoing messages for one bus. Subjects are validated once and kept."""

    def __init__(self, namespace: str, service: str, default_qos: QualityOfService) -> None:
        self._namespace = namespace
        self._service = service
        self._default_qos = default_qos
        self._subjects: dict[tuple[str, Kind, str], Subject] = {}

    def quality(self, wire: WireType, asked: QualityOfService | None) -> QualityOfService:
        """Return the quality of one publish.

        Among 1 and 2 a call may choose freely, and it may go down to 0. Raises
        `ConfigurationError` when it asks for more of a type that is sent at QoS 0: nobody would
        be listening durably.
        """
        declared = self._default_qos if wire.qos is None else wire.qos
        if asked is None:
            return declared
        if asked > declared and declared is QualityOfService.AT_MOST_ONCE:
            raise ConfigurationError(
                f"{wire.name} is sent at QoS 0 and cannot be published at QoS {int(asked)}: its "
                "handlers do not listen durably; declare the quality on the class"
            )
        return QualityOfService(asked)

    def subject(self, wire: WireType, kind: Kind, group: str = "") -> Subject:
        """Return the subject, made once. Raises `ConfigurationError` for a bad group."""
        key = (wire.name, kind, group)
        subject = self._subjects.get(key)
        if subject is None:
            if group:
                check_token(group, "destination")
            subject = self._subjects[key] = Subject(self._namespace, kind, wire.name, group)
        return subject

    def outgoing(
        self,
        message: Any,
        wire: WireType,
        qos: QualityOfService,
        to: str = "",
        extras: Extras = NOTHING_EXTRA,
    ) -> Outgoing:
        """Encode one message for its subject.

        Raises `EncodeError`, and `ConfigurationError` for a destination, id or header that cannot
        travel; nothing was sent then.
        """
        if extras.headers:
            check_headers(extras.headers)
        if qos is QualityOfService.AT_MOST_ONCE:
            if extras.not_before is not None:
                raise ConfigurationError(
                    f"{wire.name} is sent at QoS 0, where nothing is stored: it cannot be delayed"
                )
            kind = Kind.LIVE_TO if to else Kind.LIVE
        else:
            kind = Kind.TO if to else Kind.LOG
        correlation_id, parent_id = extras.correlation_id, None
        if (current := CURRENT.get()) is not None:
            correlation_id = correlation_id or current.correlation_id or current.message_id
            parent_id = current.message_id if current.exactly_once else None
        identity = identify(message, message_id=extras.message_id, correlation_id=correlation_id)
        body = write_message(
            wire,
            message,
            message_id=identity.message_id,
            source=self._service,
            time=identity.created_at,
            qos=qos,
            correlation_id=identity.correlation_id,
            reply_to=None if extras.reply_to is None else extras.reply_to.text,
            deadline=extras.deadline,
            parent_id=parent_id,
            headers=extras.headers,
        )
        stored_as = identity.message_id
        if extras.reply_to is not None and qos is QualityOfService.AT_LEAST_ONCE:
            # Asking again must be handled again: the first answer went to an address of its own.
            stored_as = f"{stored_as}/{extras.reply_to.group}/{extras.reply_to.type}"
        subject = self.subject(wire, kind, to)
        return Outgoing(subject, body, stored_as, qos, extras.reply_to, extras.not_before)
