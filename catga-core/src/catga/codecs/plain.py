"""What JSON itself can carry, and how deep it may nest."""

from __future__ import annotations

from datetime import date
from enum import Enum
from math import isfinite
from typing import Any
from uuid import UUID

__all__ = ["DEPTH_LIMIT", "SHALLOW", "Refused", "check_tree", "is_plain"]

DEPTH_LIMIT = 32
"""Lists and objects nest at most so deep in one text, where the type alone sets no bound."""

SHALLOW = 16
"""What is no deeper than this, in a type no higher than this, is surely within `DEPTH_LIMIT`."""


class Refused(ValueError):
    """A rule of ours was broken; the words hold nothing of the input."""


_KEYS = (str, UUID, date, Enum)
_TEXT = frozenset({str})
_LISTS = (list, tuple, set, frozenset)
_LEAVES = frozenset({str, int, bool, type(None)})


def is_plain(value: Any) -> bool:
    """Say whether `value` is JSON data and nothing else, and not deeper than `SHALLOW`.

    Level by level, not by recursion: hostile nesting costs no stack.
    """
    level = [value]
    for _ in range(SHALLOW):
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
    """Raise `Refused` when `tree` nests deeper than `DEPTH_LIMIT` or has keys that are no text."""
    level = [tree]
    for _ in range(DEPTH_LIMIT):
        below: list[Any] = []
        for item in level:
            if type(item) in _LEAVES:
                continue
            if isinstance(item, dict):
                if not (_TEXT.issuperset(map(type, item)) or all(map(_is_key, item))):
                    raise Refused("the keys of an object must be text")
                below.extend(item.values())
            elif isinstance(item, _LISTS):
                below.extend(item)
        if not below:
            return
        level = below
    if any(isinstance(item, (dict, *_LISTS)) for item in level):
        raise Refused(f"it nests deeper than {DEPTH_LIMIT} levels")


def _is_key(key: Any) -> bool:
    return isinstance(key, _KEYS)
