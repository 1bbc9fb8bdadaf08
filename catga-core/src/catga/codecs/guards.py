"""Guards: whether what msgspec does by itself with a value stands.

One is made per type at registration, from those of its parts; None means always.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from operator import attrgetter
from typing import Any, TypeAlias

__all__ = [
    "Guard",
    "guard_entries",
    "guard_fields",
    "guard_items",
    "guard_optional",
    "guard_values",
    "is_utc",
]

Guard: TypeAlias = Callable[[Any], bool]


def is_utc(value: Any) -> bool:
    """Say whether a datetime is in UTC already: then both ways agree on it."""
    return value.tzinfo is UTC


def guard_fields(guards: dict[str, Guard | None]) -> Guard | None:
    """Guard the attributes of an object."""
    checks = [(attrgetter(name), guard) for name, guard in guards.items() if guard is not None]
    if not checks:
        return None
    if len(checks) == 1:
        get, guard = checks[0]
        return lambda value: guard(get(value))
    return lambda value: all(guard(get(value)) for get, guard in checks)


def guard_optional(guard: Guard | None) -> Guard | None:
    """Guard what may be None."""
    return None if guard is None else lambda value: value is None or guard(value)


def guard_items(guard: Guard | None) -> Guard | None:
    """Guard each item of a collection."""
    return None if guard is None else lambda value: all(map(guard, value))


def guard_values(guard: Guard | None) -> Guard | None:
    """Guard each value of a dict."""
    return None if guard is None else lambda value: all(map(guard, value.values()))


def guard_entries(kind: type, guard: Guard | None) -> Guard:
    """Guard keys and values of a dict: msgspec makes text of numbers and much else."""
    kinds = {kind}
    if guard is None:
        return lambda value: kinds.issuperset(map(type, value))
    return lambda value: kinds.issuperset(map(type, value)) and all(map(guard, value.values()))
