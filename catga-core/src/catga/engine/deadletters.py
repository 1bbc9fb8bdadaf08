"""Dead letters: what a group gave up on, kept with its cause and its original bytes."""

from __future__ import annotations

import base64
import json
import traceback
from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b

import attrs
import msgspec

from catga.codecs import read_envelope
from catga.engine.wording import words_of
from catga.errors import DecodeError
from catga.model.qos import QualityOfService
from catga.spi import Delivery, Kind, Outgoing, StoredLetter, Subject, parse_subject

__all__ = ["DEAD_LETTER_TYPE", "DeadLetter", "describe", "read_letter"]

DEAD_LETTER_TYPE = "catga.dead-letter"
_TRACEBACK_LIMIT = 16_000


@attrs.frozen
class DeadLetter:
    """One message that one group will not try again."""

    message_id: str
    """Of the original; derived from its place in the log when it could not be read."""
    cause: str
    error: str
    """Its class and its text; what is too long of it is cut, and so is the traceback."""
    traceback: str
    attempts: int
    parked_at: datetime
    """When the group gave up, right after its last attempt."""
    sequence: str
    subject: Subject
    """Where the original was sent to."""
    group: str
    body: bytes = attrs.field(repr=False)
    created_at: datetime | None = None
    """When the original was made, as its own envelope says; None when that could not be read. Of
    the first attempt nobody keeps the time."""
    replays: int = 0
    """How often it had come back from the dead letters before."""
    headers: Mapping[str, str] | None = attrs.field(default=None, repr=False)
    """What stood beside the body of an original that is not of our making."""
    body_left_out: int = 0
    """Size in bytes of an original too large to be kept beside its cause; it is still in the log
    under `sequence`."""

    @property
    def letter_id(self) -> str:
        """The id of its CloudEvent, derived, so that parking twice stores once.

        One delivery has one; a replay that fails is another letter, as its sequence is another.
        """
        digest = blake2b(self.message_id.encode("utf-8", "surrogateescape"), digest_size=8)
        return f"{self.subject.kind.value}.{self.sequence}.{digest.hexdigest()}"

    def outgoing(self, source: str) -> Outgoing:
        """Return it as a CloudEvent for the group's dead-letter subject."""
        event = {
            "specversion": "1.0",
            "id": self.letter_id,
            "type": DEAD_LETTER_TYPE,
            "source": source,
            "time": self.parked_at.isoformat(),
            "datacontenttype": "application/json",
            "data": {
                "message_id": self.message_id,
                "cause": self.cause,
                "error": self.error,
                "traceback": self.traceback,
                "attempts": self.attempts,
                "group": self.group,
                "subject": self.subject.text,
                "sequence": self.sequence,
                "created_at": None if self.created_at is None else self.created_at.isoformat(),
                "replays": self.replays,
                "headers": None if self.headers is None else dict(self.headers),
                "body_left_out_bytes": self.body_left_out,
                "body_base64": base64.b64encode(self.body).decode(),
            },
        }
        subject = Subject(self.subject.namespace, Kind.DEAD, self.subject.type, self.group)
        return Outgoing(
            subject,
            json.dumps(event, ensure_ascii=False).encode("utf-8", "replace"),
            self.letter_id,
            QualityOfService.EXACTLY_ONCE,
        )


def describe(
    delivery: Delivery,
    *,
    message_id: str | None,
    created_at: datetime | None = None,
    group: str,
    cause: str,
    error: BaseException | None,
    now: datetime,
) -> DeadLetter:
    """Make the dead letter of a delivery that ended with `error`."""
    return DeadLetter(
        message_id=message_id or f"{delivery.subject.kind.value}-{delivery.sequence}",
        cause=cause,
        error="" if error is None else f"{type(error).__name__}: {words_of(error)}",
        traceback=""
        if error is None
        else "".join(traceback.format_exception(error))[-_TRACEBACK_LIMIT:],
        attempts=delivery.attempt,
        parked_at=now,
        sequence=delivery.sequence,
        subject=delivery.subject,
        group=group,
        body=delivery.body,
        created_at=created_at,
        replays=delivery.replays,
        headers=delivery.headers,
    )


class _Facts(msgspec.Struct, gc=False):
    """What `DeadLetter.outgoing` writes; what came later has a default."""

    message_id: str
    cause: str
    error: str
    traceback: str
    attempts: int
    group: str
    subject: str
    sequence: str
    body_base64: bytes
    body_left_out_bytes: int = 0
    created_at: datetime | None = None
    replays: int = 0
    headers: dict[str, str] | None = None


_read_facts = msgspec.json.Decoder(_Facts).decode


def read_letter(stored: StoredLetter) -> DeadLetter:
    """Return the dead letter that was parked there.

    Raises `DecodeError` that says what is wrong: anybody may have written to its subject.
    """
    envelope = read_envelope(stored.body)
    if envelope.type != DEAD_LETTER_TYPE:
        raise DecodeError(f"not a dead letter: its type is {envelope.type[:80]!r}")
    try:
        facts = _read_facts(envelope.data)
        subject = parse_subject(facts.subject)
    except Exception as error:  # also UnicodeDecodeError, which msgspec lets through
        raise DecodeError(f"not a dead letter: {error}") from error
    place = stored.subject
    if (subject.namespace, subject.type, facts.group) != (
        place.namespace,
        place.type,
        place.group,
    ) or subject.group not in {"", facts.group}:
        raise DecodeError(f"not a dead letter of {place}: it names {subject} and {facts.group!r}")
    return DeadLetter(
        message_id=facts.message_id,
        cause=facts.cause,
        error=facts.error,
        traceback=facts.traceback,
        attempts=facts.attempts,
        parked_at=envelope.time,
        sequence=facts.sequence,
        subject=subject,
        group=facts.group,
        body=facts.body_base64,
        created_at=facts.created_at,
        replays=facts.replays,
        headers=facts.headers,
        body_left_out=facts.body_left_out_bytes,
    )
