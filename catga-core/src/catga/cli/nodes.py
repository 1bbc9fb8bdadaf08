"""`catga nodes`: who is there, as a table, live if asked to."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import click
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from catga.bus import Bus
from catga.cli.errors import CommandFailed, verbose_option
from catga.cli.terminal import INTERRUPTED, console, quiet, until_signal
from catga.engine.membership import Watch
from catga.ground.tasks import end_all, first_of
from catga.model.node import ChangeKind, Node, NodeChange
from catga.plugins import installed_catalog
from catga.settings import parse_url

__all__ = ["nodes"]

_REFRESH = 1.0
_REMEMBERED = 8
_STYLES = {
    ChangeKind.JOINED: "green",
    ChangeKind.LEFT: "yellow",
    ChangeKind.UPDATED: "",
    ChangeKind.EXPIRED: "red",
}
_Show = Callable[[Watch, Sequence[NodeChange]], None]


@attrs.frozen
class _Wanted:
    """What was asked for on the command line."""

    url: str
    namespace: str
    in_json: bool

    @property
    def shown(self) -> str:
        """The place, without credentials."""
        return f"{parse_url(self.url)[0].shown}, namespace {self.namespace}"


@click.command
@click.argument("url")
@click.option(
    "--namespace", default="catga", show_default=True, metavar="NAME", help="Whose nodes."
)
@click.option(
    "--watch", is_flag=True, help="Go on, and show what changes, until Ctrl-C (exit status 130)."
)
@click.option(
    "--json", "in_json", is_flag=True, help="Write one JSON object; with --watch one per change."
)
@verbose_option
@click.pass_context
def nodes(context: click.Context, *, url: str, namespace: str, watch: bool, in_json: bool) -> None:
    """List the nodes at the broker of URL: buses that were started with `node=…`.

    A node is there while its lease holds. With --watch, who joins or leaves is seen at once, who
    dies when its lease ends; URL?node_ttl=SECONDS sets how often to look in any case.
    """
    scheme = parse_url(url)[0].scheme
    if installed_catalog().transport_for(scheme).in_process:
        raise CommandFailed(f"{scheme}:// lives in one process: ask bus.discovery.nodes() in there")
    wanted = _Wanted(url, namespace, in_json)
    with quiet():
        context.exit(asyncio.run(_follow(wanted) if watch else _list(wanted)))


def _bus(wanted: _Wanted) -> Bus:
    return Bus(wanted.url, service="catga-nodes", namespace=wanted.namespace, consume=False)


async def _list(wanted: _Wanted) -> int:
    async with _bus(wanted) as bus:
        found = await bus.discovery.nodes()
    if wanted.in_json:
        url = parse_url(wanted.url)[0].shown
        listed = [_as_json(node) for node in found]
        _write({"url": url, "namespace": wanted.namespace, "nodes": listed})
    elif found:
        console().print(_table(found))
    else:
        click.echo(f"no nodes at {wanted.shown}")
    return 0


async def _follow(wanted: _Wanted) -> int:
    stop = asyncio.Event()
    watching = asyncio.ensure_future(_watch(wanted))
    with until_signal(stop):
        try:
            if await first_of(watching, stop):
                await watching  # it ends by itself only with an error
        finally:
            await end_all([watching])
    return INTERRUPTED


async def _watch(wanted: _Wanted) -> None:
    """Connect, and show what changes, until cancelled."""
    async with _bus(wanted) as bus, bus.discovery.watch() as watch:
        with _shown(wanted) as show:
            while True:
                show(watch, await watch.receive(_REFRESH))


# ---- showing it


@contextmanager
def _shown(wanted: _Wanted) -> Iterator[_Show]:
    """Yield what shows the state of a watch: a live table where somebody looks, else lines."""
    screen = console()
    if wanted.in_json:
        yield lambda _, changes: _write_changes(changes)
    elif not screen.is_terminal:
        yield lambda _, changes: _print_changes(changes)
    else:
        last: deque[Text] = deque(maxlen=_REMEMBERED)
        with Live(console=screen, auto_refresh=False) as live:

            def show(watch: Watch, changes: Sequence[NodeChange]) -> None:
                last.extend(_line(change) for change in changes)
                count = len(watch.nodes)
                words = f"{count} {'node' if count == 1 else 'nodes'} at {wanted.shown}"
                if watch.trouble:
                    words += f"; not up to date: {watch.trouble}"
                state = Text(words, style="red" if watch.trouble else "dim")
                live.update(Group(_table(watch.nodes), state, *last), refresh=True)

            yield show


def _write(fields: dict[str, Any]) -> None:
    click.echo(json.dumps(fields, ensure_ascii=False))


def _write_changes(changes: Sequence[NodeChange]) -> None:
    for change in changes:
        at = datetime.now(UTC).isoformat()
        _write({"at": at, "change": change.kind.value, "node": _as_json(change.node)})


def _print_changes(changes: Sequence[NodeChange]) -> None:
    for change in changes:
        click.echo(_line(change).plain)


def _line(change: NodeChange) -> Text:
    node, at = change.node, datetime.now(UTC).astimezone()
    words = f"{at:%H:%M:%S} {change.kind.value:7} {node.service} {node.id} {node.address}"
    return Text(words.rstrip(), style=_STYLES[change.kind])


def _as_json(node: Node) -> dict[str, Any]:
    return {
        "id": node.id,
        "service": node.service,
        "address": node.address,
        "load": node.load,
        "metadata": dict(node.metadata),
        "started": node.started.isoformat(),
        "last_seen": node.last_seen.isoformat(),
    }


def _table(found: Sequence[Node]) -> Table:
    now, table = datetime.now(UTC), Table()
    for title in ("service", "id", "address", "load", "up", "seen", "metadata"):
        justify: Any = "right" if title in {"load", "up", "seen"} else "left"
        table.add_column(title, overflow="fold", justify=justify)
    for node in found:
        table.add_row(
            node.service,
            node.id,
            node.address,
            f"{node.load:g}",
            _ago(now - node.started),
            _ago(now - node.last_seen),
            "\n".join(f"{key}={value}" for key, value in sorted(node.metadata.items())),
        )
    return table


def _ago(span: timedelta) -> str:
    """Return a duration in its largest unit; clocks that differ a little make it no less than 0."""
    seconds = max(0, int(span.total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
