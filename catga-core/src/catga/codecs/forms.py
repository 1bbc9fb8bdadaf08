"""What a type means on the wire, found out once: its shape, and whether msgspec may do it alone.

cattrs is the authority. msgspec straight on the attrs class is only an attempt: it is made when
this module finds nothing that the two read or write differently, its result counts only when the
*guard* of the type agrees, and whenever it fails, the slow way decides.
"""

from __future__ import annotations

import types
import typing
from collections import abc
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite
from typing import Annotated, Any, Final, Literal, NewType, TypedDict, TypeVar, Union
from uuid import UUID

import attrs

from catga.codecs.classes import field_types, may_build, may_write
from catga.codecs.guards import (
    Guard,
    guard_entries,
    guard_fields,
    guard_items,
    guard_optional,
    guard_values,
    is_utc,
)
from catga.codecs.plain import SHALLOW, is_plain
from catga.errors import ConfigurationError

__all__ = [
    "JSON_SCALARS",
    "SCALARS",
    "TAG",
    "Form",
    "Forms",
    "Guard",
    "class_of",
    "members",
    "unwrap",
]

SCALARS = (
    str, int, float, bool, bytes, UUID, Decimal, datetime, date, time, timedelta, type(None),
)  # fmt: skip
TAG = "_type"
"""The key that names the class of a member of a union."""

_LISTS = (list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable)
_SETS = (set, frozenset, abc.Set, abc.MutableSet)
_DICTS = (dict, abc.Mapping, abc.MutableMapping)
_FAST_CONTAINERS = (list, tuple, set, frozenset, dict)
JSON_SCALARS = frozenset({str, int, float, bool, type(None)})
"""Told apart by JSON itself: a union of them needs no tag."""


@attrs.frozen
class Form:
    """The wire side of one type."""

    shape: Any
    """The type msgspec parses the text into before cattrs makes objects: classes are dicts."""
    reads: bool = True
    """msgspec may build the objects itself."""
    writes: bool = True
    """msgspec may write the objects itself."""
    read_guard: Guard | None = None
    write_guard: Guard | None = None
    deep: bool = False
    """The type sets no bound to the nesting: it holds `Any` or itself."""
    height: int = 0
    """How many lists and objects the type itself stacks."""


def unwrap(hint: Any) -> Any:
    """Return `hint` without `NewType`, `Final` and alias statements around it."""
    while True:
        if isinstance(hint, NewType):
            hint = hint.__supertype__
        elif typing.get_origin(hint) is Final:
            (hint,) = typing.get_args(hint)
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        else:
            return type(None) if hint is None else hint


def class_of(hint: Any) -> type | None:
    """Return the attrs class that `hint` is (or is a parametrised form of), if it is one."""
    cls = typing.get_origin(hint) or hint
    return cls if isinstance(cls, type) and attrs.has(cls) else None


def members(hint: Any) -> tuple[Any, ...]:
    """Return what a union is made of; empty for anything else."""
    is_union = typing.get_origin(hint) in (Union, types.UnionType)
    return typing.get_args(hint) if is_union else ()


class Forms:
    """Works out forms and remembers them."""

    def __init__(self) -> None:
        self._known: dict[Any, Form] = {}
        self._open: dict[type, Form] = {}
        """Classes being worked out: met again, they contain themselves."""
        self._loops = 0
        """How often that happened."""
        self.taught: set[Any] = set()
        """Types with hooks of the user's own: cattrs gets them as plain JSON."""

    def of(self, hint: Any) -> Form:
        """Return the form of `hint`. Raises `ConfigurationError` when JSON cannot carry it."""
        hint = unwrap(hint)
        try:
            known = self._known.get(hint)
        except TypeError as error:
            words = f"what {hint!r:.80} holds besides types cannot be hashed"
            raise ConfigurationError(words) from error
        if known is None:
            loops = self._loops
            known = self._work_out(hint)
            if loops == self._loops or not self._open:  # else the answer is still provisional
                self._known[hint] = known
        return known

    def _work_out(self, hint: Any) -> Form:
        origin = typing.get_origin(hint)
        if hint in self.taught:
            return Form(Any, reads=False, writes=False, deep=True)
        if hint is Any or isinstance(hint, TypeVar):
            plain = hint is Any
            return Form(Any, plain, plain, is_plain, is_plain, deep=True)
        if origin is Annotated:
            inner = self.of(hint.__origin__)
            return attrs.evolve(inner, shape=Annotated[(inner.shape, *hint.__metadata__)])
        if hint in SCALARS:
            return _scalar(hint)
        if origin is Literal:
            return _literal(hint)
        if isinstance(hint, type) and issubclass(hint, Enum):
            return _enumeration(hint)
        if (parts := members(hint)) != ():
            return self._union(hint, parts)
        if isinstance(hint, type) and attrs.has(hint):
            return self._class(hint)
        if class_of(hint) is not None:  # a parametrised class: cattrs fills the variables in
            return Form(Any, reads=False, writes=False, deep=True)
        return self._container(hint, origin or hint)

    def _class(self, cls: type) -> Form:
        if cls in self._open:
            self._loops += 1
            return self._open[cls]
        shape = TypedDict(cls.__name__, {}, total=False)  # type: ignore[misc]  # noqa: UP013 - built at run time
        self._open[cls] = Form(shape, reads=False, writes=False, deep=True)
        try:
            fields = {}
            for name, hint in field_types(cls).items():
                try:
                    fields[name] = self.of(hint)
                except ConfigurationError as error:
                    raise ConfigurationError(f"{cls.__qualname__}.{name}: {error}") from error
        finally:
            del self._open[cls]
        shape.__annotations__ = {name: form.shape for name, form in fields.items()}
        forms = list(fields.values())
        deep, height = any(form.deep for form in forms), _height(forms)
        shallow = height <= SHALLOW or not deep  # what a guard cannot see from where it stands
        return Form(
            shape,
            reads=shallow and may_build(cls) and all(form.reads for form in forms),
            writes=shallow and may_write(cls) and all(form.writes for form in forms),
            read_guard=guard_fields({n: f.read_guard for n, f in fields.items()}),
            write_guard=guard_fields({n: f.write_guard for n, f in fields.items()}),
            deep=deep,
            height=height,
        )

    def _union(self, hint: Any, parts: tuple[Any, ...]) -> Form:
        rest = [unwrap(part) for part in parts if unwrap(part) is not type(None)]
        if len(rest) == 1:
            inner = self.of(rest[0])
            return attrs.evolve(
                inner,
                shape=Any if inner.shape is Any else inner.shape | None,
                read_guard=guard_optional(inner.read_guard),
                write_guard=guard_optional(inner.write_guard),
            )
        if JSON_SCALARS.issuperset(rest):
            return Form(hint, reads=False, writes=False)
        names = [cls.__name__ for part in rest if (cls := class_of(part))]
        if len(names) == len(rest) == len(set(names)):
            for part in rest:
                self.of(part)
                if TAG in field_types(part):
                    raise ConfigurationError(f"{part.__qualname__}.{TAG} names the union's member")
            return Form(Any, reads=False, writes=False, deep=True)
        raise ConfigurationError(
            f"a union is of attrs classes with different names, or of str, int, float, bool and "
            f"None: {hint} is neither"
        )

    def _container(self, hint: Any, origin: Any) -> Form:
        args = typing.get_args(hint)
        fast = origin in _FAST_CONTAINERS
        if origin is tuple and args and args[-1] is not Ellipsis:
            return self._fixed_tuple(args)
        if origin in _DICTS:
            key, value = args or (str, Any)
            if not _is_text(self.of(key).shape):
                raise ConfigurationError(f"the keys of an object are text: {hint} has {key}")
            inner, text = self.of(value), self.of(key).shape
            return Form(
                dict[text, inner.shape],  # type: ignore[valid-type, name-defined]  # a run-time type
                inner.reads and fast,
                inner.writes and fast,
                guard_values(inner.read_guard),
                guard_entries(text, inner.write_guard),
                inner.deep,
                _height([inner]),
            )
        if origin is tuple or origin in _LISTS or origin in _SETS:
            inner = self.of(args[0] if args else Any)
            return Form(
                list[inner.shape],  # type: ignore[name-defined]  # a run-time type
                inner.reads and fast,
                inner.writes and fast,
                guard_items(inner.read_guard),
                guard_items(inner.write_guard),
                inner.deep,
                _height([inner]),
            )
        raise ConfigurationError(
            f"JSON cannot carry {hint}: use attrs classes, the usual scalars and collections, or "
            "teach the codec this type"
        )

    def _fixed_tuple(self, args: tuple[Any, ...]) -> Form:
        inner = [self.of(arg) for arg in args]
        guarded = any(form.read_guard or form.write_guard for form in inner)
        return Form(
            tuple[tuple(form.shape for form in inner)],  # type: ignore[misc]  # a run-time type
            all(form.reads for form in inner) and not guarded,
            all(form.writes for form in inner) and not guarded,
            deep=any(form.deep for form in inner),
            height=_height(inner),
        )


def _height(inner: list[Form]) -> int:
    return 1 + max((form.height for form in inner), default=0)


def _scalar(hint: Any) -> Form:
    if hint is float:  # msgspec would write null for what is no number
        return Form(float, write_guard=isfinite)
    if hint is datetime:
        return Form(datetime, read_guard=is_utc, write_guard=is_utc)
    return Form(hint)


def _literal(hint: Any) -> Form:
    if all(type(arg) in (str, int, type(None)) for arg in typing.get_args(hint)):
        return Form(hint)
    raise ConfigurationError(f"the values of a Literal are text, integers or None: {hint}")


def _enumeration(hint: type[Enum]) -> Form:
    if _values_are(hint, str) or _values_are(hint, int):
        return Form(hint)
    raise ConfigurationError(f"the values of {hint.__name__} must be all text or all integers")


def _values_are(hint: type[Enum], kind: type) -> bool:
    return all(type(member.value) is kind for member in hint)


def _is_text(shape: Any) -> bool:
    """Say whether JSON writes `shape` as text, so that it can be a key."""
    if isinstance(shape, type) and issubclass(shape, Enum):
        return _values_are(shape, str)
    return shape in (str, UUID, date)
