"""Stored once for ever: one subject for each id, which may have no message yet.

An id is known for as long as its message is stored. The server keeps something in memory for every
subject. Source: docs.nats.io, "NATS JetStream Headers", `Nats-Expected-Last-Subject-Sequence`.
"""

from __future__ import annotations

from catga.spi import Kind, Outgoing, QualityOfService
from catga_nats.errors import ApiError
from catga_nats.inbox import token
from catga_nats.names import once_subject

__all__ = ["conditional", "is_once", "stored_before"]

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_WRONG_SEQUENCE = 10071
_KINDS = frozenset({Kind.LOG, Kind.TO})


def is_once(outgoing: Outgoing) -> bool:
    """Say whether this is one of those: what an application publishes at QoS 2."""
    return outgoing.qos is QualityOfService.EXACTLY_ONCE and outgoing.subject.kind in _KINDS


def conditional(outgoing: Outgoing, headers: dict[str, str]) -> str:
    """Add the condition; return the subject of this id."""
    headers[_EXPECTED] = "0"
    return f"{once_subject(outgoing.subject)}.{token(outgoing.message_id)}"


def stored_before(error: ApiError) -> str:
    """Return the sequence of the message that the subject has already; empty: it is not that."""
    if error.err_code != _WRONG_SEQUENCE:
        return ""
    return error.description.rpartition(" ")[2]
