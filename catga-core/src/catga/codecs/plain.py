"""What JSON itself can carry, and how deep it may nest."""

from __future__ import annotations

from datetime import date
from enum import Enum
from math import isfinite
from typing import Any
from uuid import UUID

__all__ = ["DEPTH_LIMIT", "Refused", "check_tree", "is_plain"]

DEPTH_LIMIT = 32
"""Lists and objects nest at most so deep, where the type alone sets no bound."""


class Refused(ValueError):
    """A rule of ours was broken; the words hold nothing of the input."""


_KEYS = (str, UUID, date, Enum)
_LEAVES = frozenset({str, int, bool, type(None)})


def is_plain(value: Any) -> bool:
    """Say whether `value` is JSON data and nothing else, nested at most `DEPTH_LIMIT` deep.

    Level by level, not by recursion: hostile nesting costs no stack.
    """
    level = [value]
    for _ in range(DEPTH_LIMIT + 1):
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind in _LEAVES:
                continue
            if kind is dict:
                for key in item:
                    if type(key) is not str:
                        return False
                below.extend(item.values())
            elif kind is list:
                below.extend(item)
            elif kind is not float or not isfinite(item):
                return False
        if not below:
            return True
        level = below
    return False


def check_tree(tree: Any) -> None:
    """Raise `Refused` when `tree` nests too deep or has keys that would not come back."""
    level = [tree]
    for _ in range(DEPTH_LIMIT + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                if not all(isinstance(key, _KEYS) for key in item):
                    raise Refused("the keys of an object must be text")
                below.extend(item.values())
            elif isinstance(item, list | tuple | set | frozenset):
                below.extend(item)
        if not below:
            return
        level = below
    raise Refused(f"it nests deeper than {DEPTH_LIMIT} levels")
