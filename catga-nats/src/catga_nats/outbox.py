"""What transactions publish: stored in their batch, then carried to the log by a consumer of ours.

The log stream cannot source it from there: a stream that holds schedules has no sources (error
10187 of nats-server 2.12 and 2.15). So it lies beside its record until somebody has carried it on,
which whoever handles messages at QoS 2 does, and the id of the copy swallows a second one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime

from catga.spi import Outgoing, QualityOfService, parse_subject
from catga_nats import names

__all__ = ["committed_copy", "in_batch"]

_TARGET = "Catga-Target"
_ID = "Catga-Id"


def in_batch(outgoing: Outgoing) -> tuple[str, bytes, dict[str, str]]:
    """Return the message of a batch that stands for it: the same id takes the same place."""
    headers = {_TARGET: outgoing.subject.text, _ID: outgoing.message_id}
    words = f"{outgoing.subject.text}/{outgoing.message_id}".encode()
    token = hashlib.blake2b(words, digest_size=16).hexdigest()
    return names.out_subject(outgoing.subject.namespace, token), outgoing.body, headers


def committed_copy(body: bytes, headers: Mapping[str, str]) -> tuple[Outgoing, datetime | None]:
    """Return what is to be published, and that it is due. Raises `ConfigurationError` when this is
    none of ours."""
    target = parse_subject(headers.get(_TARGET, ""))
    return Outgoing(target, body, headers.get(_ID, ""), QualityOfService.EXACTLY_ONCE), None
