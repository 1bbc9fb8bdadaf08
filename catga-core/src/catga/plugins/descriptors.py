"""Whether what a plugin hands over is what it should be: pure checks."""

from __future__ import annotations

import re
from typing import Any

import attrs

from catga.errors import ConfigurationError, PluginIncompatibleError
from catga.model.capability import Capability
from catga.spi import SPI_VERSION, CommandDescriptor, TransportDescriptor

__all__ = ["check_command", "check_transport"]

_NAME = re.compile(r"[a-z][a-z0-9]{0,31}")
_COMMAND = re.compile(r"[a-z][a-z0-9-]{0,31}")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,31}")


def check_transport(part: Any) -> TransportDescriptor:
    """Return `part` when it is a usable description of a transport.

    Raises `PluginIncompatibleError` for another version of the interface, `ConfigurationError`
    for everything else that is wrong with it.
    """
    if not isinstance(part, TransportDescriptor):
        raise ConfigurationError(f"returned {_kind(part)} as a transport: need TransportDescriptor")
    # First of all: in another version of the interface the other fields may mean something else.
    if part.spi_version != SPI_VERSION:
        raise PluginIncompatibleError(
            f"was written for version {part.spi_version} of the plugin interface, "
            f"this catga-core has version {SPI_VERSION}: install versions that fit"
        )
    if not (isinstance(part.name, str) and _NAME.fullmatch(part.name)):
        raise ConfigurationError(f"names a transport {part.name!r}: use a-z 0-9, a letter first")
    named = f"brings the transport {part.name!r}"
    schemes = part.schemes
    if not (isinstance(schemes, tuple) and schemes and all(map(_is_scheme, schemes))):
        raise ConfigurationError(f"{named} with schemes {schemes!r}: need a tuple such as ('x',)")
    if not callable(part.factory):
        raise ConfigurationError(f"{named} with a factory that cannot be called")
    if not isinstance(part.capabilities, frozenset) or not all(
        isinstance(each, Capability) for each in part.capabilities
    ):
        raise ConfigurationError(f"{named} with capabilities that are not a frozenset of them")
    _check_settings(part.settings, named)
    return part


def check_command(part: Any) -> CommandDescriptor:
    """Return `part` when it is a usable description of a command. Raises `ConfigurationError`."""
    if not isinstance(part, CommandDescriptor):
        raise ConfigurationError(f"returned {_kind(part)} as a command: need CommandDescriptor")
    if not (isinstance(part.name, str) and _COMMAND.fullmatch(part.name)):
        raise ConfigurationError(f"names a command {part.name!r}: use a-z 0-9 -, a letter first")
    if not callable(part.load):
        raise ConfigurationError(f"brings the command {part.name!r} that cannot be loaded")
    return part


def _check_settings(settings: Any, named: str) -> None:
    if not (isinstance(settings, type) and attrs.has(settings)):
        raise ConfigurationError(f"{named} with settings that are not an attrs class")
    try:
        attrs.resolve_types(settings)
    except NameError as error:
        raise ConfigurationError(f"{named} with settings of unknown types: {error}") from error
    required = [
        field.alias
        for field in attrs.fields(settings)
        if field.init and field.default is attrs.NOTHING
    ]
    if required:
        raise ConfigurationError(f"{named} with settings without a default: {', '.join(required)}")


def _is_scheme(word: Any) -> bool:
    return isinstance(word, str) and _SCHEME.fullmatch(word) is not None


def _kind(part: Any) -> str:
    return f"the class {part.__name__}" if isinstance(part, type) else f"a {type(part).__name__}"
