"""What was wrong with the input, in words that never repeat the input."""

from __future__ import annotations

import re

import msgspec
from cattrs import BaseValidationError
from cattrs.errors import AttributeValidationNote, IterableValidationNote

from catga.codecs.plain import Refused

__all__ = ["explain"]

_PATH = re.compile(r" - at `(?:key` in `)?\$(.*)`$")
_VALUE = re.compile(r"(Invalid enum value) .*")


def explain(error: BaseException) -> str:
    """Return where and what was expected, from the first thing that failed in `error`."""
    path = "$"
    while isinstance(error, BaseValidationError):
        path += _step(inner := error.exceptions[0])
        error = inner
    if isinstance(error, KeyError) and error.args and path.endswith(f".{error.args[0]}"):
        return f"{path}: the required field {error.args[0]!r} is missing"
    if isinstance(error, Refused):
        return f"{path}: {error}"
    if isinstance(error, RecursionError):
        return f"{path}: it nests too deep"
    if isinstance(error, msgspec.DecodeError):
        found = _PATH.search(str(error))
        words = _VALUE.sub(r"\1", _PATH.sub("", str(error)))
        return f"{path}{found[1] if found else ''}: {words}"
    if isinstance(error, UnicodeError):
        return f"{path}: not valid UTF-8 text"
    return f"{path}: refused with {type(error).__name__}"


def _step(error: BaseException) -> str:
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return f".{note.name}"
        if isinstance(note, IterableValidationNote):
            return f"[{note.index}]" if isinstance(note.index, int) else "[...]"
    return ""
