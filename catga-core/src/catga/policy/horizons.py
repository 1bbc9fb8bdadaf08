"""Whether the two windows of exactly once reach as far as messages can come again."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["broken_horizons"]


def broken_horizons(
    *,
    dedupe_window: float,
    publish_deadline: float,
    completion_ttl: float,
    attempts: int,
    backoff_cap: float,
    lease: float,
    attempt: float,
    retention: float = 0.0,
) -> Mapping[str, str]:
    """Return the broken assumptions of QoS 2 by the name to accept them under, with the reason.

    All times in seconds. A publish is repeated until its deadline, so W must outlast it. A
    delivery comes again at most `attempts` times (the margin for crashes included), each after the
    longest `attempt` or a lease and the longest backoff, so D must outlast that; what a handler
    asks for with `Retry(after=…)` is not known here. A group that is deleted and made anew begins
    with what is retained, so D must outlast the retention (the replay horizon) as well.
    """
    broken = {}
    if dedupe_window < publish_deadline:
        broken["dedupe_window"] = (
            f"dedupe_window (W = {dedupe_window:g} s) is shorter than publish_deadline "
            f"({publish_deadline:g} s): a repeated publish could be stored twice"
        )
    redelivery = attempts * (backoff_cap + max(lease, attempt))
    if completion_ttl < redelivery:
        broken["completion_ttl"] = (
            f"completion_ttl (D = {completion_ttl:g} s) is shorter than redelivery can take "
            f"({redelivery:g} s): what was completed could be handled again"
        )
    if completion_ttl < retention:
        broken["replay"] = (
            f"completion_ttl (D = {completion_ttl:g} s) is shorter than retention "
            f"({retention:g} s): a group that is made anew gets what is retained, and what it had "
            "completed could be handled again"
        )
    return broken
