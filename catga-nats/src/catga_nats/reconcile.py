"""What we want against what the server has: pure decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from catga.errors import CapabilityError, ConfigurationError

__all__ = ["Step", "Thing", "changes", "check_echo"]

_FIXED = frozenset({"storage", "retention", "ack_policy"})
"""Settings JetStream never changes on what exists."""
_NO_LIMIT = (None, 0, -1)


@attrs.frozen
class Thing:
    """A stream or a consumer as it is wanted, and the API calls that bring it about."""

    name: str
    """For people: `the stream catga-log`."""
    config: Mapping[str, Any]
    """What it is created with."""
    info: str
    create: str
    update: str
    stream: str = ""
    """The stream of a consumer."""
    required: frozenset[str] = frozenset()
    """Settings without which it is of no use to us: refused when they differ."""
    explicit: frozenset[str] = frozenset()
    """Settings somebody gave: imposed where the server allows it, else refused."""
    preferred: frozenset[str] = frozenset()
    """Settings imposed on what exists where we may change it, else adopted as they are."""
    at_least: Mapping[str, int] = attrs.field(factory=dict)
    """Limits that would break a promise below this: raised to what is wanted."""

    def body(self, config: Mapping[str, Any], action: str) -> dict[str, Any]:
        """Return the request that creates (or updates) it with this configuration."""
        if not self.stream:
            return dict(config)
        return {"stream_name": self.stream, "config": config, "action": action}


@attrs.frozen
class Step:
    """One thing as the server has it, and what is going to be done about it."""

    thing: Thing
    has: Mapping[str, Any] | None
    """None: it is not there."""
    asked: Mapping[str, Any]
    """What is to be set: all of it, what differs, or nothing."""
    busy: bool = False
    """Whether somebody has messages of this consumer in hand, or asks for some."""

    @property
    def config(self) -> dict[str, Any]:
        """What it is going to be."""
        return {**(self.has or {}), **self.asked}

    @property
    def call(self) -> tuple[str, Any]:
        """The request that does it."""
        if self.has is None:
            return self.thing.create, self.thing.body(self.asked, "create")
        return self.thing.update, self.thing.body(self.config, "update")


def changes(thing: Thing, has: Mapping[str, Any], *, may_change: bool) -> dict[str, Any]:
    """Return what has to be changed on what the server has; nothing when it fits.

    Raises `ConfigurationError`, naming the setting and both values, when it cannot be changed.
    """
    found: dict[str, Any] = {}
    for key in _differing(thing, has, thing.preferred if may_change else frozenset()):
        if (
            not may_change
            or key in _FIXED
            or (key in thing.required and not _grows(thing, has, key))
        ):
            why = "cannot be changed" if may_change else "verify mode changes nothing"
            raise ConfigurationError(
                f"{thing.name} has {key}={_shown(has.get(key))}, wanted is "
                f"{_shown(thing.config[key])}, and it {why}: adapt the setting, or change it on "
                "the server"
            )
        found[key] = thing.config[key]
    return found


def _grows(thing: Thing, has: Mapping[str, Any], key: str) -> bool:
    """A stream of an earlier version takes fewer subjects: those it lacks can be added."""
    return key == "subjects" and set(has.get(key) or ()) < set(thing.config[key])


def _differing(thing: Thing, has: Mapping[str, Any], preferred: frozenset[str]) -> list[str]:
    firm = thing.required | thing.explicit | preferred
    differing = {key for key in firm if not _same(thing.config[key], has.get(key))}
    for key, least in thing.at_least.items():
        present = has.get(key)
        if present not in _NO_LIMIT and present < least:
            differing.add(key)
    return sorted(differing)


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
    return bool(wanted == present or (wanted in _NO_LIMIT and present in _NO_LIMIT))


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10**9:
        return f"{value / 1e9:g}s" if value % 10**6 == 0 else str(value)
    return str(value)
