"""What moves: one message on its way out, one delivery, and what is to become of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from catga.model.outcome import Ack, Nack, Reject
from catga.model.qos import QualityOfService
from catga.model.subject import Subject

__all__ = ["Delivery", "Outgoing", "Settle"]


class Outgoing(msgspec.Struct, gc=False):
    """One encoded message on its way out.

    A value; one is made per message, so it is neither frozen nor looked at by the collector.
    """

    subject: Subject
    body: bytes
    message_id: str
    qos: QualityOfService
    reply_to: Subject | None = None
    """Set on requests: where the response will go, so that the broker can tell at once that
    nobody listens (`Capability.NO_RESPONDERS`)."""
    not_before: datetime | None = None
    """No group gets it earlier, by the wall clock in UTC (`Capability.DELAY`; stored subjects
    only). The receipt means that it is stored durably, like any other."""
    attempts: int = 0
    """Attempts that were made on another copy and go on counting on this one."""
    replays: int = 0
    """How often this message has come back from the dead letters of its group."""

    def __repr__(self) -> str:
        return f"<Outgoing {self.message_id} to {self.subject}, {len(self.body)} bytes>"


class Delivery(msgspec.Struct, eq=False):
    """One attempt to hand one message to one consumer; itself, whatever it looks like.

    (A struct because one is made per message, and the parser of messages makes these fastest.)
    """

    subject: Subject
    body: bytes
    attempt: int
    """1 for the first, counted by the broker, on top of `Outgoing.attempts`."""
    sequence: str
    """The broker's own name for the stored copy; empty at QoS 0."""
    lease_until: float
    """On the runtime's monotonic clock; infinite at QoS 0. Updated by `extend`."""
    token: Any = None
    """The transport's own handle."""
    headers: Mapping[str, str] | None = None
    """Broker headers or fields beside the body, when there are any."""
    no_responders: bool = False
    """On a reply subscription: nobody listens for the request with this token."""
    replays: int = 0
    """As it was published (`Outgoing.replays`)."""
    doubtful: bool = False
    """Set by a transport whose broker may have forgotten who has this, and hand it to another in
    mid-lease: no handler is begun on it any more. One that runs is stopped at QoS 2, and may still
    settle it at QoS 1."""

    def __repr__(self) -> str:
        return f"<Delivery {self.subject.text} {self.sequence} attempt {self.attempt}>"


class Settle(msgspec.Struct, eq=False):
    """One delivery and what to do with it."""

    delivery: Delivery
    outcome: Ack | Nack | Reject
    confirm: bool = False
    """Wait until the broker has confirmed it (QoS 2)."""
