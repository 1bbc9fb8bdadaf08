"""What a single call adds to a message."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from catga.model.subject import Subject

__all__ = ["NOTHING_EXTRA", "Extras"]


class Extras(msgspec.Struct, frozen=True, gc=False):
    """What a single call adds to a message."""

    message_id: str | None = None
    correlation_id: str | None = None
    headers: Mapping[str, str] | None = None
    reply_to: Subject | None = None
    deadline: datetime | None = None
    not_before: datetime | None = None


NOTHING_EXTRA = Extras()
