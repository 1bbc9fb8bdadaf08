"""The cattrs converter that says what types mean: strict scalars, tagged unions."""

from __future__ import annotations

import typing
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from enum import Enum
from math import isfinite
from typing import Any, Literal

import msgspec
from cattrs import Converter

from catga.codecs.forms import JSON_SCALARS, SCALARS, TAG, class_of, members, unwrap
from catga.codecs.plain import Refused

__all__ = ["make_converter"]


def make_converter() -> Converter:
    """Return a converter whose scalars are msgspec's, in strict mode.

    Both ways of reading a scalar are thereby the same code: `"12"` and `true` are no integers.
    Always with detailed validation: it is hardly slower, and without it cattrs (26.2) generates
    invalid code for a keyword-only field before a positional one.
    """
    converter = Converter(
        detailed_validation=True, unstruct_collection_overrides={AbstractSet: list}
    )
    for scalar in SCALARS:
        converter.register_structure_hook(scalar, _read_scalar)
        converter.register_unstructure_hook(scalar, _identity)
    converter.register_structure_hook(datetime, _read_datetime)
    converter.register_unstructure_hook(datetime, _write_datetime)
    converter.register_unstructure_hook(float, _write_float)
    converter.register_structure_hook_func(_is_scalar_like, _read_scalar)
    converter.register_unstructure_hook_func(_is_enum, _identity)
    converter.register_structure_hook_factory(
        _is_union, lambda hint: _TaggedUnion(converter, hint).read
    )
    converter.register_unstructure_hook_factory(
        _is_union, lambda hint: _TaggedUnion(converter, hint).write
    )
    return converter


def _read_scalar(value: Any, hint: Any) -> Any:
    return msgspec.convert(value, hint, strict=True)


def _identity(value: Any) -> Any:
    return value


def _read_datetime(value: Any, _: Any) -> datetime:
    moment: datetime = msgspec.convert(value, datetime, strict=True)
    return _write_datetime(moment)


def _write_datetime(moment: datetime) -> datetime:
    if moment.tzinfo is UTC:
        return moment
    if moment.utcoffset() is None:
        raise Refused("a datetime must have a time zone")
    return moment.astimezone(UTC)


def _write_float(value: float) -> float:
    if not isfinite(value):
        raise Refused("JSON has no infinity and no not-a-number")
    return value


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Enum)


def _is_scalar_like(hint: Any) -> bool:
    """Say whether msgspec reads `hint` as one scalar: enums, literals, unions of JSON's own."""
    if _is_enum(hint) or typing.get_origin(hint) is Literal:
        return True
    parts = members(hint)
    return len(parts) > 1 and JSON_SCALARS.issuperset(map(unwrap, parts))


def _is_union(hint: Any) -> bool:
    """Say whether `hint` has two members or more beside None, and they are no scalars."""
    return not _is_scalar_like(hint) and len(_classes(hint)) > 1


def _classes(hint: Any) -> list[Any]:
    return [part for part in map(unwrap, members(hint)) if part is not type(None)]


class _TaggedUnion:
    """Attrs classes told apart by their name under `TAG`.

    On the wire the same as the tagged union of cattrs.strategies; that one asks for the hooks of
    all members at once, so a union cannot contain itself, and it knows no None.
    """

    def __init__(self, converter: Converter, hint: Any) -> None:
        self._converter = converter
        self._optional = type(None) in members(hint)
        self._by_class = {class_of(part): part for part in _classes(hint)}
        self._by_tag = {cls.__name__: part for cls, part in self._by_class.items() if cls}

    def read(self, value: Any, _: Any) -> Any:
        if value is None and self._optional:
            return None
        tag = value.get(TAG) if isinstance(value, dict) else None
        part = self._by_tag.get(tag) if isinstance(tag, str) else None
        if part is None:
            raise Refused(f"needs an object with {TAG!r}: one of {', '.join(self._by_tag)}")
        return self._converter.structure(value, part)

    def write(self, value: Any) -> Any:
        if value is None and self._optional:
            return None
        part = self._by_class.get(type(value))
        if part is None:
            raise Refused(f"needs one of {', '.join(self._by_tag)}")
        return {TAG: type(value).__name__, **self._converter.unstructure(value, part)}
