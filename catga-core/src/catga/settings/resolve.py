"""Three layers become one: code wins over the URL's query, that over the environment."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

import attrs

from catga.errors import ConfigurationError, PluginIncompatibleError
from catga.settings.core import Settings
from catga.settings.values import convert
from catga.spi import Secret, TransportDescriptor

__all__ = ["CONTROL_VARIABLES", "Resolved", "check_overlap", "resolve_settings"]

_PREFIX = "CATGA_"

CONTROL_VARIABLES: Mapping[str, str] = {
    "CATGA_DISABLE_PLUGINS": "names of plugins that are not loaded, with commas",
    "CATGA_REQUIRE_BROKERS": "1: a test that finds no server to run fails (continuous integration)",
    "CATGA_NATS_SERVER": "path of the nats-server that tests and examples start",
    "CATGA_REDIS_SERVER": "path of the redis-server or valkey-server that they start",
}
"""Variables that steer the machinery; never settings. Nor is anything that begins CATGA_TEST_."""


@attrs.frozen
class Resolved:
    """The settings of one bus."""

    core: Settings
    transport: Any
    """An instance of the descriptor's `settings`."""
    explicit: frozenset[str]
    """The keys that somebody gave, of both; all others have their defaults."""
    core_keys: frozenset[str]
    """All keys of the core's."""


@attrs.frozen
class _Given:
    """One value and where it was given."""

    value: Any = attrs.field(repr=False)
    where: str


def resolve_settings(
    descriptor: TransportDescriptor,
    query: Mapping[str, str],
    environment: Mapping[str, str],
    code: Mapping[str, Any],
    *,
    others: Iterable[str] = (),
) -> Resolved:
    """Return the settings of a bus on this transport.

    Variables are `CATGA_<KEY>` for the core's keys and `CATGA_<NAME>_<KEY>` for the transport's;
    empty ones count as absent, and those of `others` (names of other plugins) are left alone.
    Raises `ConfigurationError` for an unknown key or a value that does not fit, saying where it
    was given, and `PluginIncompatibleError` when the transport reuses a key of the core.
    """
    check_overlap(descriptor)
    core, own = _fields(Settings), _fields(descriptor.settings)
    fields = core | own
    given: dict[str, _Given] = dict(
        _from_environment(descriptor.name, core, own, environment, others)
    )
    for layer, where in ((query, "in the URL"), (code, "in code")):
        for key, value in layer.items():
            if key not in fields:
                raise _unknown(key, where, fields)
            given[key] = _Given(value, where)
    values = {key: _converted(key, each, fields[key]) for key, each in given.items()}
    return Resolved(
        core=_build(Settings, core, values, given),
        transport=_build(descriptor.settings, own, values, given),
        explicit=frozenset(given),
        core_keys=frozenset(core),
    )


def check_overlap(descriptor: TransportDescriptor) -> None:
    """Raise `PluginIncompatibleError` when a transport's setting has the name of one of ours."""
    both = sorted(_fields(Settings).keys() & _fields(descriptor.settings).keys())
    if both:
        raise PluginIncompatibleError(
            f"the transport {descriptor.name!r} has settings with names of the core's: "
            f"{', '.join(both)}; its author must rename them",
            plugin=descriptor.name,
        )


def _fields(cls: type) -> dict[str, attrs.Attribute[Any]]:
    resolved = attrs.fields(attrs.resolve_types(cls))
    return {field.alias: field for field in resolved if field.init}


def _from_environment(
    name: str,
    core: Iterable[str],
    own: Iterable[str],
    environment: Mapping[str, str],
    others: Iterable[str],
) -> Iterator[tuple[str, _Given]]:
    keys = {_PREFIX + key.upper(): key for key in core}
    keys |= {f"{_PREFIX}{name}_{key}".upper(): key for key in own}
    foreign = tuple(f"{_PREFIX}{other}_".upper() for other in others if other != name)
    for variable, value in environment.items():
        if not variable.startswith(_PREFIX) or not value:
            continue
        if variable in keys:
            yield keys[variable], _Given(value, f"in the environment, {variable}")
        elif not _is_control(variable) and not variable.startswith(foreign):
            raise _unknown(variable, "in the environment", keys)


def _is_control(variable: str) -> bool:
    return variable in CONTROL_VARIABLES or variable.startswith("CATGA_TEST_")


def _unknown(key: Any, where: str, known: Iterable[str]) -> ConfigurationError:
    near = difflib.get_close_matches(str(key), list(known), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(sorted(known))}"
    return ConfigurationError(f"unknown setting {str(key)[:60]!r} ({where}); {hint}")


def _converted(key: str, given: _Given, field: attrs.Attribute[Any]) -> Any:
    try:
        return convert(given.value, field.type)
    except ValueError as error:
        hidden = not field.repr or field.type is Secret or Secret in get_args(field.type)
        got = "" if hidden else f", not {str(given.value)[:60]!r}"
        raise ConfigurationError(
            f"the setting {key!r} ({given.where}) must be {error}{got}"
        ) from None  # the original may quote the value


def _build(
    cls: type,
    fields: Mapping[str, Any],
    values: Mapping[str, Any],
    given: Mapping[str, _Given],
) -> Any:
    mine = {key: value for key, value in values.items() if key in fields}
    try:
        return cls(**mine)
    except (ValueError, TypeError, ConfigurationError) as error:
        where = "; ".join(f"{key} {given[key].where}" for key in mine)
        raise ConfigurationError(f"{error} (given: {where})") from error
