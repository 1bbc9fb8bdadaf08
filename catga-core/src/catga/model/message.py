"""Messages: plain attrs classes that know their identity, which is not one of their fields."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from catga.ground.ids import check_message_id, ids_of_now, next_message_id
from catga.model.qos import QualityOfService
from catga.model.retry import RetryPolicy

__all__ = [
    "RESERVED_ATTRIBUTES",
    "Event",
    "Identity",
    "Message",
    "Moment",
    "Request",
    "adopt",
    "identify",
]

ResponseT = TypeVar("ResponseT")

RESERVED_ATTRIBUTES = ("message_id", "created_at", "correlation_id")
"""What a message class may not use as the name of a field: they are read from the identity."""


class Identity(msgspec.Struct, gc=False):
    """Who one message object is: fixed once, at its first publish or when it was received."""

    message_id: str
    created_at: datetime
    correlation_id: str | None


class Message:
    """The base of what an application sends.

    Derive attrs classes from `Event` or `Request`. The identity is filled when first read, takes
    no part in equality, does not stand in the body, and does not survive `attrs.evolve`: a
    changed copy is another message, the same object published twice is the same message.

    Class attributes, all optional and *not annotated* (annotated they would become fields):
    `qos`, `wire_name`, `version`, `retry` (a `RetryPolicy`), and the reserved `key`.
    """

    __slots__ = ("_identity",)

    qos: ClassVar[QualityOfService | None] = None
    wire_name: ClassVar[str | None] = None
    version: ClassVar[int] = 1
    retry: ClassVar[RetryPolicy | None] = None

    _identity: Identity

    @property
    def message_id(self) -> str:
        """The id under which this message is stored once."""
        return identify(self).message_id

    @property
    def created_at(self) -> datetime:
        """When this object got its identity, in UTC."""
        return identify(self).created_at

    @property
    def correlation_id(self) -> str | None:
        """What ties this message to the one that caused it, if anything."""
        return identify(self).correlation_id


class Event(Message):
    """Something that happened: many groups may listen."""

    __slots__ = ()


class Request(Message, Generic[ResponseT]):
    """A question with one answer of type `ResponseT`."""

    __slots__ = ()


adopt = vars(Message)["_identity"].__set__
"""Fix the identity of a message which has none yet, of a frozen class as well: `adopt(message,
identity)`."""


class Moment:
    """What messages share that get their identity together: one time, and most of a fresh id."""

    __slots__ = ("new_id", "now")

    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.new_id = ids_of_now()


def identify(
    message: Any,
    moment: Moment | None = None,
    *,
    message_id: str | None = None,
    correlation_id: str | None = None,
) -> Identity:
    """Return the identity of `message`, fixing it on the first call: of now, or of a `moment`
    outside of any handler.

    A given `message_id` or `correlation_id` wins over what was fixed before. Objects that do not
    derive from `Message` cannot remember theirs: they get a new one at every call. Inside a handler
    at QoS 2 what is fixed here is derived, so that a re-run gives the same ids again.

    Raises `ConfigurationError` for a message id that cannot travel.
    """
    known: Identity | None = getattr(message, "_identity", None)
    if known is None:
        if moment is not None:
            known = Identity(moment.new_id(), moment.now, correlation_id)
        else:
            known = Identity(
                next_message_id() if message_id is None else check_message_id(message_id),
                datetime.now(UTC),
                correlation_id,
            )
        if isinstance(message, Message):
            adopt(message, known)
        return known
    if message_id is not None and message_id != known.message_id:
        known.message_id = check_message_id(message_id)
    if correlation_id is not None:
        known.correlation_id = correlation_id
    return known
