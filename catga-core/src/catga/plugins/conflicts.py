"""Who claims what twice. What is contested counts for nobody; nothing is decided by luck."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from catga.errors import PluginConflictError
from catga.plugins.catalog import DISABLE_VARIABLE, Plugin

__all__ = ["contested_commands", "contested_schemes"]


def contested_schemes(plugins: Sequence[Plugin]) -> Mapping[str, PluginConflictError]:
    """Return the URL schemes that are off, because they or their transport's name are contested."""
    names = _contested(
        "the transport name",
        ((each.name, plugin) for plugin in plugins for each in plugin.transports),
    )
    contested = {
        scheme: names[each.name]
        for plugin in plugins
        for each in plugin.transports
        if each.name in names
        for scheme in each.schemes
    }
    return contested | _contested(
        "the URL scheme",
        (
            (scheme, plugin)
            for plugin in plugins
            for each in plugin.transports
            for scheme in each.schemes
        ),
    )


def contested_commands(plugins: Sequence[Plugin]) -> Mapping[str, PluginConflictError]:
    """Return the commands that are off, because several plugins bring them."""
    return _contested(
        "the command", ((each.name, plugin) for plugin in plugins for each in plugin.commands)
    )


def _contested(what: str, claims: Iterable[tuple[str, Plugin]]) -> dict[str, PluginConflictError]:
    claimants: dict[str, list[Plugin]] = defaultdict(list)
    for word, plugin in claims:
        claimants[word].append(plugin)
    return {
        word: _conflict(f"{what} {word!r}", those)
        for word, those in claimants.items()
        if len(those) > 1
    }


def _conflict(what: str, claimants: Sequence[Plugin]) -> PluginConflictError:
    first, last = claimants[0], claimants[-1]
    if first == last:
        return first.problem(PluginConflictError, f"claims {what} twice, so it is off")
    others = " and ".join(str(each) for each in claimants[1:])
    return first.problem(
        PluginConflictError,
        f"and {others} both claim {what}, so it is off: "
        f"switch one of them off, e.g. {DISABLE_VARIABLE}={last.name}",
    )
