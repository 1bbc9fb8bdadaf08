"""What was found: one frozen table, made once, asked at start-up and never on the message path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TypeVar

import attrs

from catga.errors import ConfigurationError, PluginConflictError, PluginError
from catga.spi import CommandDescriptor, Instrument, Middleware, TransportDescriptor

__all__ = ["DISABLE_VARIABLE", "Catalog", "Plugin", "PluginState"]

ErrorT = TypeVar("ErrorT", bound=PluginError)

DISABLE_VARIABLE = "CATGA_DISABLE_PLUGINS"

# The one place where the core knows names of published plugins: who asks for a scheme that is not
# there is told what to install. (URL scheme: extra of catga-core, which is the plugin's name.)
_PUBLISHED: Mapping[str, str] = {
    "inmemory": "inmemory",
    "nats": "nats",
    "redis": "redis",
    "redis+cluster": "redis",
    "redis+sentinel": "redis",
    "rediss": "redis",
    "rediss+cluster": "redis",
    "tls": "nats",
}


class PluginState(StrEnum):
    """How far a plugin came."""

    ON = "on"
    OFF = "off"
    """Switched off by name; it was not imported."""
    FAILED = "failed"
    """It could not be imported, or its name is contested; nothing of it is used."""


@attrs.frozen
class Plugin:
    """One entry point of the group `catga`."""

    name: str
    distribution: str
    """The distribution it came with, or `?` when that is unknown."""
    version: str
    state: PluginState = PluginState.ON
    transports: tuple[TransportDescriptor, ...] = ()
    """What it declared and what is valid, contested or not."""
    commands: tuple[CommandDescriptor, ...] = ()
    middleware: tuple[Callable[[], Middleware], ...] = ()
    instruments: tuple[Callable[[], Instrument], ...] = ()

    def problem(self, kind: type[ErrorT], reason: str) -> ErrorT:
        """Return the error that says what is wrong with this plugin."""
        return kind(f"{self} {reason}", self.name, self.distribution, self.version)

    def __str__(self) -> str:
        return f"the plugin {self.name!r} ({self.distribution} {self.version})"


@attrs.frozen
class Catalog:
    """Everything the installed plugins bring, and what is wrong with them."""

    plugins: tuple[Plugin, ...] = ()
    """In the order of their names; so are the parts below."""
    transports: Mapping[str, TransportDescriptor] = attrs.field(factory=dict)
    """By URL scheme; contested schemes are missing."""
    conflicts: Mapping[str, PluginConflictError] = attrs.field(factory=dict)
    """By URL scheme."""
    problems: tuple[PluginError, ...] = ()
    """Everything that is wrong, conflicts included; each names plugin and distribution."""
    middleware: tuple[Callable[[], Middleware], ...] = ()
    """Called once per bus. Raise `PluginLoadError`."""
    instruments: tuple[Callable[[], Instrument], ...] = ()
    """Called once per bus. Raise `PluginLoadError`."""
    commands: tuple[CommandDescriptor, ...] = ()

    @property
    def settings_names(self) -> frozenset[str]:
        """The names that may stand behind `CATGA_` in settings of some plugin, used or not."""
        declared = {each.name for plugin in self.plugins for each in plugin.transports}
        return frozenset(declared | {plugin.name for plugin in self.plugins})

    def transport_for(self, scheme: str) -> TransportDescriptor:
        """Return the transport that claims `scheme`.

        Raises `PluginConflictError` when several do, `PluginError` when the one that is known to
        bring it could not be used, and otherwise `ConfigurationError`, naming what is known and
        what to install.
        """
        found = self.transports.get(scheme)
        if found is not None:
            return found
        if scheme in self.conflicts:
            raise self.conflicts[scheme].with_traceback(None)
        name = _PUBLISHED.get(scheme, scheme)
        for plugin in self.plugins:
            if plugin.name == name and plugin.state is PluginState.OFF:
                raise ConfigurationError(
                    f"{plugin} is switched off: take {name!r} out of {DISABLE_VARIABLE}"
                )
        for problem in self.problems:
            if problem.plugin == name:
                raise problem.with_traceback(None)
        raise ConfigurationError(self._unknown(scheme))

    def _unknown(self, scheme: str) -> str:
        known = ", ".join(sorted(self.transports)) or "none, no transport is installed"
        text = f"no transport for the URL scheme {scheme[:40]!r}; known schemes: {known}"
        if scheme in _PUBLISHED:
            extra = _PUBLISHED[scheme]
            return f"{text}; install catga-{extra}: pip install 'catga-core[{extra}]'"
        if self.problems:
            failed = ", ".join(sorted({problem.plugin for problem in self.problems}))
            return f"{text}; something is wrong with: {failed} (see `catga plugins`)"
        return text
