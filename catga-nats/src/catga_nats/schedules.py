"""How a delayed message is stored: as one of the server's schedules, or for a consumer of ours.

Both keep it in the log stream, beside its target, so that one window of ids holds for it now and
later. Source: nats-architecture-and-design ADR-51 (schedules, nats-server 2.12). Measured on 2.12
and 2.15: a schedule is removed when it has fired, what it produced has no id, and a second one on
the same subject replaces the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime

from catga.errors import ConfigurationError
from catga.spi import Outgoing, QualityOfService, parse_subject
from catga_nats import names
from catga_nats.headers import MESSAGE_ID, carried, stored_id

__all__ = ["SCHEDULES_SINCE", "due_copy", "held_back", "scheduled"]

SCHEDULES_SINCE = (2, 12)
_TARGET = "Catga-Target"
_DUE = "Catga-Due"
_DUE_COPY = "/due"


def scheduled(outgoing: Outgoing, when: datetime, headers: dict[str, str]) -> str:
    """Add what makes it a schedule of the server's; return the subject it is stored on."""
    headers["Nats-Schedule"] = f"@at {when.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    headers["Nats-Schedule-Target"] = outgoing.subject.text
    return names.scheduled_subject(outgoing.subject.namespace, _token(outgoing))


def held_back(outgoing: Outgoing, when: datetime, headers: dict[str, str]) -> str:
    """Do the same for our own consumer."""
    headers[_TARGET] = outgoing.subject.text
    headers[_DUE] = when.astimezone(UTC).isoformat()
    return names.waiting_subject(outgoing.subject.namespace, _token(outgoing))


def due_copy(body: bytes, headers: Mapping[str, str]) -> tuple[Outgoing, datetime | None]:
    """Return what is to be published of a message that was held back, and when.

    Its id is derived from the first: one copy, however often it is tried. Raises
    `ConfigurationError` when this is none of ours.
    """
    attempts, replays = carried(headers)
    target = parse_subject(headers.get(_TARGET, ""))
    message_id = headers.get(MESSAGE_ID, "").removeprefix(f"{target}/") + _DUE_COPY
    try:
        when = datetime.fromisoformat(headers.get(_DUE, "")).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f"not a time: {error}") from error
    qos = QualityOfService.AT_LEAST_ONCE
    return Outgoing(target, body, message_id, qos, attempts=attempts, replays=replays), when


def _token(outgoing: Outgoing) -> str:
    """One subject for each id: a repeat takes the place of the same message only."""
    return hashlib.blake2b(stored_id(outgoing).encode(), digest_size=16).hexdigest()
