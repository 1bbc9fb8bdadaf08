"""Which attrs classes msgspec treats as their own constructor would."""

from __future__ import annotations

import typing
from typing import Any

import attrs

from catga.errors import ConfigurationError

__all__ = ["field_types", "may_build", "may_write"]


def field_types(cls: type) -> dict[str, Any]:
    """Return the resolved type of each field that the constructor takes.

    Raises `ConfigurationError` when an annotation names something its module does not have.
    """
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except Exception as error:
        raise ConfigurationError(
            f"the annotations of {cls.__qualname__} cannot be resolved ({error}): define the "
            "classes it names at the top of a module"
        ) from error
    return {
        field.name: Any if field.type is None else hints.get(field.name, field.type)
        for field in attrs.fields(cls)
        if field.init
    }


def may_write(cls: type) -> bool:
    """Say whether msgspec writes the same fields as cattrs: it skips private ones and writes those
    the constructor does not take."""
    return all(
        field.init and field.alias == field.name and not field.name.startswith("_")
        for field in attrs.fields(cls)
    )


def may_build(cls: type) -> bool:
    """Say whether msgspec, which sets attributes without calling the constructor, builds the same.

    It runs validators and `__attrs_post_init__`, but neither converters nor anything else.
    """
    return (
        may_write(cls)
        and not any(field.converter or _needs_self(field.default) for field in attrs.fields(cls))
        and not hasattr(cls, "__attrs_pre_init__")
        and not issubclass(cls, BaseException)
        and cls.__new__ is object.__new__
        and _has_plain_setattr(cls)
        and _has_plain_init(cls)
    )


def _needs_self(default: Any) -> bool:
    return getattr(default, "takes_self", False) is True


def _has_plain_setattr(cls: type) -> bool:
    setter: Any = cls.__setattr__
    return setter in _SETTERS or "__attrs_own_setattr__" in vars(cls)


def _has_plain_init(cls: type) -> bool:
    """Say whether attrs wrote the constructor, and it does nothing but set fields."""
    code = getattr(getattr(cls, "__init__", None), "__code__", None)
    if code is None or not code.co_filename.startswith("<attrs generated"):
        return False
    return "_attrs_cached_hash" not in (*code.co_consts, *code.co_names)


@attrs.frozen
class _Frozen:
    pass


_SETTERS = (object.__setattr__, _Frozen.__setattr__)
