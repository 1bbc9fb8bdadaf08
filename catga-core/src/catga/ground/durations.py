"""Durations as people write them: a `timedelta`, or a number of seconds."""

from __future__ import annotations

import math
from datetime import timedelta

__all__ = ["duration"]


def duration(value: timedelta | float) -> timedelta:
    """Return `value`, a number counting as seconds.

    Raises `ValueError` for what is no finite duration; the text says what is due.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        try:
            return timedelta(seconds=value)
        except OverflowError:
            pass
    raise ValueError(f"must be a timedelta or a number of seconds, not {value!r}")
