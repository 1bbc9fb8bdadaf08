"""Quality of service: what is promised about the number of deliveries."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["QualityOfService"]


class QualityOfService(IntEnum):
    """What a message type asks for; ordered by strictness."""

    AT_MOST_ONCE = 0
    """Handed over and forgotten: zero or one time, nothing is stored."""

    AT_LEAST_ONCE = 1
    """Stored before `publish` returns, delivered until handled: perhaps several times."""

    EXACTLY_ONCE = 2
    """As at least once; one id is stored once, and what a group completed is not handled again."""
