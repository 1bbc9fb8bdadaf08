"""`catga plugins`: what was found, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import attrs
import click
from rich.console import Console
from rich.table import Table

from catga.cli.errors import verbose_option
from catga.errors import PluginConflictError, PluginError, PluginIncompatibleError
from catga.plugins import Catalog, Plugin, installed_catalog
from catga.settings import check_overlap

__all__ = ["plugins"]


@click.command
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
@verbose_option
@click.pass_context
def plugins(context: click.Context, *, as_json: bool) -> None:
    """List the installed plugins, and what is wrong with them.

    Exit status 1 when anything is. CATGA_DISABLE_PLUGINS=name,name switches plugins off.
    """
    catalog = installed_catalog()
    parent = context.find_root().command
    own = set(parent.commands) if isinstance(parent, click.Group) else set()
    problems = [*catalog.problems, *_later_problems(catalog, own)]
    if as_json:
        click.echo(json.dumps(_as_json(catalog, problems), ensure_ascii=False))
    else:
        _show(catalog, problems)
    context.exit(1 if problems else 0)


def _later_problems(catalog: Catalog, own: set[str]) -> Iterator[PluginError]:
    """Find what the loader cannot see from its floor: clashes with our settings and commands."""
    for plugin in catalog.plugins:
        for transport in plugin.transports:
            try:
                check_overlap(transport)
            except PluginIncompatibleError as error:
                yield plugin.problem(PluginIncompatibleError, f"cannot be used: {error}")
        for command in plugin.commands:
            if command.name in own:
                reason = f"brings the command {command.name!r}, which is catga's own"
                yield plugin.problem(PluginConflictError, reason)


def _of(plugin: Plugin, problems: list[PluginError]) -> list[PluginError]:
    key = (plugin.name, plugin.distribution, plugin.version)
    return [each for each in problems if (each.plugin, each.distribution, each.version) == key]


def _as_json(catalog: Catalog, problems: list[PluginError]) -> dict[str, Any]:
    return {
        "ok": not problems,
        "schemes": {scheme: each.name for scheme, each in sorted(catalog.transports.items())},
        "plugins": [
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "state": plugin.state.value,
                "transports": [
                    {
                        "name": transport.name,
                        "schemes": list(transport.schemes),
                        "capabilities": sorted(each.value for each in transport.capabilities),
                        "settings": [field.alias for field in attrs.fields(transport.settings)],
                    }
                    for transport in plugin.transports
                ],
                "commands": [command.name for command in plugin.commands],
                "problems": [
                    {"kind": type(each).__name__, "reason": str(each)}
                    for each in _of(plugin, problems)
                ],
            }
            for plugin in catalog.plugins
        ],
    }


def _show(catalog: Catalog, problems: list[PluginError]) -> None:
    # No markup: the words of plugins (and `catga-core[nats]`) would be read as styles.
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 120  # a file or a pipe has no width to keep to
    if not catalog.plugins:
        console.print("no plugins; a transport is one: pip install 'catga-core[inmemory]'")
    else:
        console.print(_table(catalog, problems))
    for problem in problems:
        console.print(f"problem: {problem}", soft_wrap=True)


def _table(catalog: Catalog, problems: list[PluginError]) -> Table:
    table = Table()
    for title in ("plugin", "distribution", "version", "schemes", "capabilities", "state"):
        table.add_column(title, overflow="fold")
    for plugin in catalog.plugins:
        schemes = [scheme for each in plugin.transports for scheme in each.schemes]
        capabilities = {each.value for one in plugin.transports for each in one.capabilities}
        table.add_row(
            plugin.name,
            plugin.distribution,
            plugin.version,
            "\n".join(
                f"{scheme} (off)" if scheme in catalog.conflicts else scheme for scheme in schemes
            ),
            "\n".join(sorted(capabilities)),
            plugin.state.value,
            style="yellow" if _of(plugin, problems) else None,
        )
    return table
