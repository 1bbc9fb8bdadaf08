"""Loads plugins one by one, so that a broken one harms nobody else.

pluggy's own entry-point loader is not used: there one failing import aborts all, and a second
plugin of the same name is skipped in silence. Each plugin gets a manager of its own, for the same
reason: in a shared one, one raising hook stops the rest.
"""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
import inspect
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib.metadata import EntryPoint
from typing import Any, TypeVar

import attrs
import pluggy

from catga.errors import (
    ConfigurationError,
    PluginConflictError,
    PluginError,
    PluginIncompatibleError,
    PluginLoadError,
)
from catga.plugins.catalog import DISABLE_VARIABLE, Catalog, Plugin, PluginState
from catga.plugins.conflicts import contested_commands, contested_schemes
from catga.plugins.descriptors import check_command, check_transport
from catga.plugins.hookspecs import ENTRY_POINT_GROUP, HOOK_PREFIX, HookSpecs
from catga.spi import Instrument, Middleware

__all__ = ["installed_catalog", "load_catalog"]

PartT = TypeVar("PartT")


def load_catalog(
    entry_points: Iterable[EntryPoint] | None = None, disabled: Iterable[str] | None = None
) -> Catalog:
    """Load every plugin that is not switched off and return what they bring.

    The defaults: all installed entry points of group `catga`, and the names that stand in
    `CATGA_DISABLE_PLUGINS`. Raises nothing for what is wrong with a plugin: that is in
    `Catalog.problems`.
    """
    if entry_points is None:
        entry_points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    if disabled is None:
        disabled = (word.strip() for word in os.environ.get(DISABLE_VARIABLE, "").split(","))
    found = {(point.name, *_origin(point), point.value): point for point in entry_points}
    points = [found[key] for key in sorted(found)]
    repeated = {name for name, times in Counter(p.name for p in points).items() if times > 1}
    problems: list[PluginError] = []
    off = frozenset(disabled)
    plugins = []
    for point in points:
        loading = _Loading(Plugin(point.name, *_origin(point)))
        plugins.append(loading.run(point, off, repeated))
        problems += loading.problems
    return _assemble(plugins, problems)


@functools.cache
def installed_catalog() -> Catalog:
    """Return the catalog of what is installed; made once per process."""
    return load_catalog()


def _origin(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist is not None else ("?", "?")


def _assemble(plugins: Sequence[Plugin], problems: Sequence[PluginError]) -> Catalog:
    conflicts = contested_schemes(plugins)
    commands = contested_commands(plugins)
    return Catalog(
        plugins=tuple(plugins),
        transports={
            scheme: transport
            for plugin in plugins
            for transport in plugin.transports
            for scheme in transport.schemes
            if scheme not in conflicts
        },
        conflicts=conflicts,
        problems=(*problems, *dict.fromkeys([*conflicts.values(), *commands.values()])),
        middleware=tuple(make for plugin in plugins for make in plugin.middleware),
        instruments=tuple(make for plugin in plugins for make in plugin.instruments),
        commands=tuple(
            command
            for plugin in plugins
            for command in plugin.commands
            if command.name not in commands
        ),
    )


class _Loading:
    """One plugin on its way in, and what turned out to be wrong with it."""

    def __init__(self, plugin: Plugin) -> None:
        self.problems: list[PluginError] = []
        self._plugin = plugin
        self._manager = pluggy.PluginManager(ENTRY_POINT_GROUP)
        self._manager.add_hookspecs(HookSpecs)

    def run(self, point: EntryPoint, off: frozenset[str], repeated: set[str]) -> Plugin:
        """Return the plugin with everything of it that is usable."""
        if point.name in off:
            return attrs.evolve(self._plugin, state=PluginState.OFF)
        if point.name in repeated:
            reason = "is off because another plugin has the same name: uninstall one of the two"
            self.problems.append(self._plugin.problem(PluginConflictError, reason))
            return attrs.evolve(self._plugin, state=PluginState.FAILED)
        if not self._register(point):
            return attrs.evolve(self._plugin, state=PluginState.FAILED)
        return attrs.evolve(
            self._plugin,
            transports=self._valid("transports", check_transport),
            middleware=self._valid("middleware", partial(self._maker, Middleware)),
            instruments=self._valid("instruments", partial(self._maker, Instrument)),
            commands=self._valid("cli_commands", check_command),
        )

    def _register(self, point: EntryPoint) -> bool:
        try:
            implementation = point.load()
            self._manager.register(implementation, point.name)
        except (Exception, SystemExit) as error:
            self._note(f"could not be loaded: {_shown(error)}", error)
            return False
        for reason in _misspelt(implementation):
            self._note(reason)
        return True

    def _valid(self, hook: str, check: Callable[[Any], PartT]) -> tuple[PartT, ...]:
        valid = []
        for part in self._parts(HOOK_PREFIX + hook):
            try:
                valid.append(check(part))
            except PluginIncompatibleError as error:
                self.problems.append(self._plugin.problem(PluginIncompatibleError, str(error)))
            except ConfigurationError as error:
                self._note(str(error))
        return tuple(valid)

    def _parts(self, hook: str) -> Iterator[Any]:
        try:
            results = getattr(self._manager.hook, hook)()
        except (Exception, SystemExit) as error:
            self._note(f"raised in its {hook}: {_shown(error)}", error)
            return
        for result in results:
            if inspect.iscoroutine(result):
                result.close()  # or Python warns that it was never awaited
                self._note(f"has an async {hook}: hooks are plain functions")
            elif isinstance(result, Sequence) and not isinstance(result, str | bytes):
                yield from result
            else:
                self._note(f"returned no sequence from {hook} but {type(result).__name__}")

    def _maker(self, kind: type[PartT], part: Any) -> Callable[[], PartT]:
        if isinstance(part, kind) or callable(part):
            return partial(_make, self._plugin, kind, part)
        raise ConfigurationError(f"returned {part!r:.80}: need an instance of {kind.__name__}")

    def _note(self, reason: str, cause: BaseException | None = None) -> None:
        problem = self._plugin.problem(PluginLoadError, reason)
        problem.__cause__ = cause
        self.problems.append(problem)


def _make(plugin: Plugin, kind: type[PartT], part: Any) -> PartT:
    try:
        made = part if isinstance(part, kind) else part()
    except Exception as error:
        reason = f"raised while making its {kind.__name__}: {_shown(error)}"
        raise plugin.problem(PluginLoadError, reason) from error
    if isinstance(made, kind):
        return made
    raise plugin.problem(
        PluginLoadError, f"made a {type(made).__name__} where {kind.__name__} is due"
    )


def _misspelt(implementation: Any) -> Iterator[str]:
    """Say which functions look like hooks but never would be called; pluggy ignores most."""
    hooks = [name for name in vars(HookSpecs) if name.startswith(HOOK_PREFIX)]
    for name in dir(implementation):
        function = inspect.getattr_static(implementation, name, None)  # no property must run
        if not inspect.isroutine(function):
            continue
        mark = getattr(function, "catga_impl", None)
        spec = (mark or {}).get("specname") or name
        if spec in hooks and mark is None:
            yield f"has {name} without @hookimpl, which is never called"
        elif spec not in hooks and (mark is not None or name.startswith(HOOK_PREFIX)):
            near = difflib.get_close_matches(spec, hooks, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(hooks)}"
            yield f"has {name}, which is no hook of Catga: {hint}"


def _shown(error: BaseException) -> str:
    """One line that says what was raised."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
