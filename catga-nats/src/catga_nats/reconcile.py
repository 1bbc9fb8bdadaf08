"""What we want against what the server has: pure decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from catga.errors import CapabilityError, ConfigurationError

__all__ = ["Thing", "changes", "check_echo"]

_FIXED = frozenset({"storage", "retention", "deliver_policy", "ack_policy"})
"""Settings JetStream never changes on what exists."""


@attrs.frozen
class Thing:
    """A stream or a consumer as it is wanted."""

    name: str
    """For people: `the stream catga-log`."""
    config: Mapping[str, Any]
    """What it is created with."""
    required: frozenset[str] = frozenset()
    """Settings without which it is of no use to us: refused when they differ."""
    explicit: frozenset[str] = frozenset()
    """Settings somebody gave: imposed where the server allows it, else refused."""


def changes(thing: Thing, has: Mapping[str, Any], *, may_change: bool) -> dict[str, Any]:
    """Return what has to be changed on what the server has; nothing when it fits.

    Raises `ConfigurationError`, naming the setting and both values, when it cannot be changed.
    """
    found: dict[str, Any] = {}
    for key in sorted(thing.required | thing.explicit):
        wanted, present = thing.config[key], has.get(key)
        if _same(wanted, present):
            continue
        if key in thing.required or key in _FIXED or not may_change:
            why = "cannot be changed" if may_change else "verify mode changes nothing"
            raise ConfigurationError(
                f"{thing.name} has {key}={_shown(present)}, wanted is {_shown(wanted)}, and it "
                f"{why}: adapt the setting, or change it on the server"
            )
        found[key] = wanted
    return found


def check_echo(thing: Thing, asked: Mapping[str, Any], returned: Mapping[str, Any]) -> None:
    """Raise `CapabilityError` when the server has dropped a setting it was given.

    nats-server before 2.15 drops in silence what it does not know.
    """
    for key, wanted in asked.items():
        if not _same(wanted, returned.get(key)):
            raise CapabilityError(
                f"{thing.name}: the server was asked for {key}={_shown(wanted)} and answered "
                f"{_shown(returned.get(key))}: it does not offer that"
            )


def _same(wanted: Any, present: Any) -> bool:
    if isinstance(wanted, list):
        return sorted(wanted) == sorted(present or ())
    # JetStream leaves out what is at its zero; no limit is written as 0 and as -1.
    return bool(wanted == present or (wanted in (0, -1, False) and present in (None, 0, -1, False)))


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1_000_000_000:
        return f"{value / 1e9:g}s" if value % 1_000_000 == 0 else str(value)
    return str(value)
