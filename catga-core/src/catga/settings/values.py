"""From text to values: what stands in URLs and environments, read by the type of the field.

Values from code pass through the same converter: one that has the right type already stays as it
is, text is read, everything else is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from cattrs import Converter

from catga.spi import Secret

__all__ = ["convert"]

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)?")
_SECONDS = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TRUTH = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def convert(value: Any, kind: Any) -> Any:
    """Return `value` as a `kind`.

    Raises `ValueError` with the words for what is due; the value itself is not in it.
    """
    # Not cattrs' own registry: there a hook for `int` also takes every IntEnum, `str` a StrEnum.
    if kind in _READERS:
        return _READERS[kind](value, kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _choice(value, kind)
    words = get_args(kind)
    if get_origin(kind) in (Union, UnionType) and len(words) == 2 and NoneType in words:
        return _optional(value, words)
    if get_origin(kind) in (frozenset, set, list, tuple):
        return _collection(value, kind)
    try:
        return _cattrs.structure(value, kind)
    except Exception as error:
        raise ValueError(f"a {getattr(kind, '__name__', kind)}") from error


def _duration(value: Any, _: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    try:
        if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
            return timedelta(seconds=float(match[1]) * _SECONDS[match[2]])
        if isinstance(value, int | float) and not isinstance(value, bool):
            return timedelta(seconds=value)
    except (OverflowError, ValueError):
        pass
    raise ValueError("a duration such as 250ms, 30s, 5m, 24h or a number of seconds")


def _truth(value: Any, _: Any) -> bool:
    if isinstance(value, str):
        value = _TRUTH.get(value.strip().lower())
    if isinstance(value, bool):
        return value
    raise ValueError("true or false")


def _whole(value: Any, _: Any) -> int:
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("a whole number")


def _number(value: Any, _: Any) -> float:
    try:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            number = float(value)
            if math.isfinite(number):
                return number
    except ValueError:
        pass
    raise ValueError("a number")


def _text(value: Any, _: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("text")


def _secret(value: Any, _: Any) -> Secret:
    return value if isinstance(value, Secret) else Secret(_text(value, str))


def _choice(value: Any, kind: type[Enum]) -> Enum:
    if isinstance(value, kind):
        return value
    word = str(value).strip().lower().replace("-", "_")
    for member in kind:
        if word in (member.name.lower(), str(member.value).lower().replace("-", "_")):
            return member
    raise ValueError("one of " + ", ".join(member.name.lower() for member in kind))


def _optional(value: Any, words: tuple[Any, ...]) -> Any:
    if value is None or (isinstance(value, str) and value.strip().lower() == "none"):
        return None
    (inner,) = (word for word in words if word is not NoneType)
    try:
        return convert(value, inner)
    except ValueError as error:
        raise ValueError(f"{error}, or none") from error


def _collection(value: Any, kind: Any) -> Any:
    if isinstance(value, str):
        value = [word.strip() for word in value.split(",") if word.strip()]
    if not isinstance(value, list | tuple | set | frozenset):
        raise ValueError("a list, in text with commas")  # noqa: TRY004 - one kind of error
    build: Any = get_origin(kind)
    inner = get_args(kind)[0]
    return build(convert(each, inner) for each in value)


_READERS: Mapping[Any, Callable[[Any, Any], Any]] = {
    timedelta: _duration,
    bool: _truth,
    int: _whole,
    float: _number,
    str: _text,
    Secret: _secret,
}
_cattrs = Converter()
