"""What exactly once means on one bus, in one line."""

from __future__ import annotations

import math

__all__ = ["exactly_once_words", "span"]

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))


def exactly_once_words(
    *, atomic: bool, transport: str, window: float, ttl: float, records: str = ""
) -> str:
    """Return the mode, W and D: `exactly once [atomic: redis] W=10 min D=24 h`.

    `atomic`: what a handler writes through its transaction is committed with its completion;
    windowed: a crash in mid-handler can repeat its effects. `records` is where these are when it
    is not beside the messages. Times in seconds.
    """
    mode = "atomic" if atomic else "windowed"
    if records:
        transport = f"{transport}, records at {records}"
    return f"exactly once [{mode}: {transport}] W={span(window)} D={span(ttl)}"


def span(seconds: float) -> str:
    """Return a time in the largest unit of which it is a whole number, days from two on."""
    if math.isinf(seconds):
        return "for ever"
    for size, unit in _UNITS:
        if seconds >= size * (2 if unit == "d" else 1) and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
