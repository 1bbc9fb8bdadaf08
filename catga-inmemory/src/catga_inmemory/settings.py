"""What can be set on the in-memory transport."""

from __future__ import annotations

import attrs
from attrs import validators

__all__ = ["MemorySettings"]


@attrs.frozen
class MemorySettings:
    """Settings of `inmemory://` URLs."""

    live_buffer: int = attrs.field(default=10_000, validator=validators.ge(1))
    """QoS 0 messages kept for one slow listener; beyond it new ones are dropped and reported."""
