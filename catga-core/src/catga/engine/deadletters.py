"""Dead letters: what a group gave up on, kept with its cause and its original bytes."""

from __future__ import annotations

import base64
import json
import traceback
from datetime import datetime
from hashlib import blake2b

import attrs

from catga.model.qos import QualityOfService
from catga.spi import Delivery, Kind, Outgoing, Subject

__all__ = ["DEAD_LETTER_TYPE", "DeadLetter", "describe"]

DEAD_LETTER_TYPE = "catga.dead-letter"
_TRACEBACK_LIMIT = 16_000


@attrs.frozen
class DeadLetter:
    """One message that one group will not try again."""

    message_id: str
    """Of the original; derived from its place in the log when it could not be read."""
    cause: str
    error: str
    traceback: str
    attempts: int
    parked_at: datetime
    sequence: str
    subject: Subject
    """Where the original was sent to."""
    group: str
    body: bytes = attrs.field(repr=False)
    body_left_out: int = 0
    """Size in bytes of an original too large to be kept beside its cause; it is still in the log
    under `sequence`."""

    def outgoing(self, source: str) -> Outgoing:
        """Return it as a CloudEvent for the group's dead-letter subject.

        Its id is derived, so that parking twice stores once.
        """
        digest = blake2b(self.message_id.encode("utf-8", "surrogateescape"), digest_size=8)
        id_ = f"{self.subject.kind.value}.{self.sequence}.{digest.hexdigest()}"
        event = {
            "specversion": "1.0",
            "id": id_,
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
                "body_left_out_bytes": self.body_left_out,
                "body_base64": base64.b64encode(self.body).decode(),
            },
        }
        subject = Subject(self.subject.namespace, Kind.DEAD, self.subject.type, self.group)
        return Outgoing(
            subject,
            json.dumps(event, ensure_ascii=False).encode("utf-8", "backslashreplace"),
            id_,
            QualityOfService.EXACTLY_ONCE,
        )


def describe(
    delivery: Delivery,
    *,
    message_id: str | None,
    group: str,
    cause: str,
    error: BaseException | None,
    now: datetime,
) -> DeadLetter:
    """Make the dead letter of a delivery that ended with `error`."""
    return DeadLetter(
        message_id=message_id or f"{delivery.subject.kind.value}-{delivery.sequence}",
        cause=cause,
        error="" if error is None else f"{type(error).__name__}: {error}",
        traceback=""
        if error is None
        else "".join(traceback.format_exception(error))[-_TRACEBACK_LIMIT:],
        attempts=delivery.attempt,
        parked_at=now,
        sequence=delivery.sequence,
        subject=delivery.subject,
        group=group,
        body=delivery.body,
    )
