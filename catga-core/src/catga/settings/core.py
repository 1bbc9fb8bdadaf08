"""The core's own settings. A transport adds its own, in the same flat namespace."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs

from catga.model.qos import QualityOfService

__all__ = ["Settings"]

_MILLISECOND = timedelta(milliseconds=1)
_DAY = timedelta(days=1)


def _between(low: Any, high: Any) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    def check(_: object, field: attrs.Attribute[Any], value: Any) -> None:
        if value is not None and not low <= value <= high:
            raise ValueError(f"{field.name!r} must lie between {low} and {high}, not at {value}")

    return check


_wait = _between(_MILLISECOND, _DAY)


@attrs.frozen(kw_only=True)
class Settings:
    """How a bus works; the same on every transport."""

    lease: timedelta = attrs.field(default=timedelta(seconds=30), validator=_wait)
    """How long a delivery stays with its receiver before another may take it; renewed at a third
    while the handler runs (the broker's ack wait or pending timeout)."""
    handler_timeout: timedelta | None = attrs.field(default=timedelta(seconds=60), validator=_wait)
    """How long one attempt of a handler may take; None (`none`) for as long as it likes, within
    `lease_limit`."""
    lease_limit: timedelta = attrs.field(default=timedelta(hours=1), validator=_wait)
    """How long a delivery's lease is renewed, from when it came. Then the handler that still has it
    is stopped, and another member gets it."""
    attempts: int = attrs.field(default=5, validator=_between(1, 1000))
    """After so many failed attempts a message becomes a dead letter."""
    backoff_base: timedelta = attrs.field(default=timedelta(seconds=0.5), validator=_wait)
    """Between attempts: a random time up to base x 2^n, but at most `backoff_cap`."""
    backoff_cap: timedelta = attrs.field(default=timedelta(seconds=60), validator=_wait)
    concurrency: int = attrs.field(default=16, validator=_between(1, 100_000))
    """So many calls of one handler run at the same time in this bus."""
    prefetch: int = attrs.field(default=500, validator=_between(1, 100_000))
    """So many deliveries of one subscription are in this process at the same time."""
    publish_window: int = attrs.field(default=1024, validator=_between(1, 1_000_000))
    """So many publishes are under way at the same time; further ones wait."""
    dedupe_window: timedelta | None = attrs.field(
        default=timedelta(minutes=10), validator=_between(_MILLISECOND, 365 * _DAY)
    )
    """W: within it one message id is stored once (QoS 1 and 2). None (`none`): for ever at QoS 2,
    for which the broker keeps something of every message: see `catga.spi.Capability.FOREVER`. All
    who publish in a namespace need the same."""
    completion_ttl: timedelta = attrs.field(
        default=timedelta(hours=24), validator=_between(_MILLISECOND, 3650 * _DAY)
    )
    """D: so long a group remembers what it completed, and responses are kept (QoS 2)."""
    retention: timedelta = attrs.field(
        default=timedelta(hours=24), validator=_between(_MILLISECOND, 3650 * _DAY)
    )
    """How long a stored message stays at the least, for groups that come later. What is older,
    older than W, and settled by every group may be removed; nothing else ever is."""
    publish_deadline: timedelta = attrs.field(default=timedelta(seconds=15), validator=_wait)
    """How long a publish is tried again before its outcome is called unknown."""
    connect_deadline: timedelta = attrs.field(default=timedelta(seconds=5), validator=_wait)
    drain_deadline: timedelta = attrs.field(default=timedelta(seconds=30), validator=_wait)
    """How long stopping may take: finishing what is in hand, then giving back the rest."""
    request_timeout: timedelta = attrs.field(default=timedelta(seconds=5), validator=_wait)
    node_ttl: timedelta = attrs.field(default=timedelta(seconds=15), validator=_wait)
    """How long a node is seen after its last heartbeat (its lease)."""
    node_heartbeat: timedelta | None = attrs.field(default=None, validator=_wait)
    """How often a node renews its lease; None (`none`): at a third of `node_ttl`."""
    default_qos: QualityOfService = QualityOfService.AT_LEAST_ONCE
    """For message types that do not say."""
    wait_handled: bool | None = None
    """Whether a publish waits for its handlers where the transport can tell; None leaves it to
    the transport."""
    accept_risk: frozenset[str] = frozenset()
    """Broken assumptions of QoS 2, by name, to start on all the same."""
    create: bool = True
    """Whether streams and groups that are missing are created; otherwise they must be there."""

    @property
    def window(self) -> float:
        """W in seconds; infinite when it is for ever."""
        return float("inf") if self.dedupe_window is None else self.dedupe_window.total_seconds()

    def __attrs_post_init__(self) -> None:
        if self.backoff_base > self.backoff_cap:
            raise ValueError("'backoff_base' must not be longer than 'backoff_cap'")
        if self.node_heartbeat is not None and self.node_heartbeat > self.node_ttl / 2:
            raise ValueError("'node_heartbeat' must not be longer than half of 'node_ttl'")
