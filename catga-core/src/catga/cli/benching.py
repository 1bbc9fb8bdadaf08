"""Measuring a broker for `catga bench`: what is done, in what order, and how it is shown."""

from __future__ import annotations

import asyncio
import itertools
import json
import platform
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import attrs
import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from catga.cli.speeds import Bench, Speed, exchange, latency, one_by_one, request, stored
from catga.cli.terminal import INTERRUPTED, console, printable, quiet, until_signal
from catga.errors import CatgaError
from catga.ground.ids import new_instance
from catga.ground.tasks import end_all, finish, first_of
from catga.plugins import installed_catalog
from catga.settings import parse_url

__all__ = ["Wanted", "measure"]

_Act = Callable[[Bench, int], Coroutine[Any, Any, list[Speed]]]


@attrs.frozen(kw_only=True)
class Wanted:
    """What was asked for on the command line."""

    url: str = attrs.field(repr=False)
    seconds: float
    size: int
    qualities: tuple[int, ...]


@attrs.define
class _Report:
    """What is known in the end. Nothing in it holds credentials."""

    url: str
    server: str
    speeds: list[Speed] = attrs.field(factory=list)
    failures: dict[str, str] = attrs.field(factory=dict)
    interrupted: bool = False
    left_behind: str = ""
    """Why the namespace could not be removed; empty when it was."""

    @property
    def status(self) -> int:
        """The exit status of the program."""
        return INTERRUPTED if self.interrupted else int(bool(self.failures or self.left_behind))


def measure(wanted: Wanted, *, in_json: bool) -> int:
    """Measure everything, write the report, and return the exit status."""
    with quiet():
        report = asyncio.run(_measure(wanted))
    if in_json:
        click.echo(json.dumps(_as_json(report, wanted), ensure_ascii=False))
    else:
        _show(report, wanted)
    return report.status


async def _measure(wanted: Wanted) -> _Report:
    address, _ = parse_url(wanted.url)
    inside = installed_catalog().transport_for(address.scheme).in_process
    bench = Bench(
        url=wanted.url,
        namespace=f"bench-{new_instance()}",
        seconds=wanted.seconds,
        size=wanted.size,
        inside=inside,
    )
    async with bench.bus(consume=False) as bus:
        report = _Report(address.shown, "this process" if inside else bus.transport.server)
    stop = asyncio.Event()
    with until_signal(stop):
        try:
            await _work(bench, wanted.qualities, report, stop)
        finally:
            if not inside:
                await finish(_remove(bench, report))
    return report


async def _work(
    bench: Bench, qualities: tuple[int, ...], report: _Report, stop: asyncio.Event
) -> None:
    works: list[tuple[str, _Act, int]] = []
    for qos in qualities:
        if bench.inside or not qos:
            works.append(("publish and handle", exchange, qos))
        else:
            works += [("publish and consume", stored, qos), ("one by one", one_by_one, qos)]
        works.append(("latency", latency, qos))
        if not qos:
            works.append(("request", request, qos))
    with _progress(len(works)) as tell:
        for name, act, qos in works:
            what = f"qos {qos} {name}"
            tell(what)
            task = asyncio.ensure_future(act(bench, qos))
            try:
                if not await first_of(task, stop):
                    report.interrupted = True
                    return
                report.speeds += task.result()
            except (CatgaError, TimeoutError) as error:
                report.failures[what] = " ".join(str(error).split()) or "took too long"
            finally:
                await end_all([task])


async def _remove(bench: Bench, report: _Report) -> None:
    try:
        async with bench.bus(consume=False) as bus:
            await bus.transport.remove(bench.namespace)
    except CatgaError as error:
        report.left_behind = f"namespace {bench.namespace}: {error}"


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """Show a bar on standard error, when somebody looks at it; what is yielded moves it on."""
    screen = console(errors=True)
    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=total)
        done = itertools.count()
        yield lambda what: bar.update(task, completed=next(done), description=what, refresh=True)


def _versions() -> str:
    return f"catga-core {version('catga-core')}, Python {platform.python_version()}"


def _as_json(report: _Report, wanted: Wanted) -> dict[str, Any]:
    return {
        "ok": not report.status,
        "url": report.url,
        "server": report.server,
        "versions": _versions(),
        "size_bytes": wanted.size,
        "seconds": wanted.seconds,
        "speeds": [attrs.asdict(each) for each in report.speeds],
        "failures": report.failures,
        "interrupted": report.interrupted,
        "left_behind": report.left_behind,
    }


def _show(report: _Report, wanted: Wanted) -> None:
    screen = console()
    heading = f"{report.url}: {report.server or 'unknown'}; {_versions()}; {wanted.size} bytes"
    screen.print(printable(heading), soft_wrap=True)
    if report.speeds:
        screen.print(_table(report.speeds))
    for what, reason in report.failures.items():
        screen.print(printable(f"not measured: {what}: {reason}"), soft_wrap=True)
    if report.interrupted:
        screen.print("interrupted: the rest is not measured")
    if report.left_behind:
        screen.print(printable(f"left behind: {report.left_behind}"), soft_wrap=True)


def _table(speeds: list[Speed]) -> Table:
    table = Table("qos", "path")
    for head in ("messages", "per second", "p50 µs", "p99 µs", "processor µs each"):
        table.add_column(head, justify="right")
    for each in speeds:
        rate = "" if each.per_second is None else f"{each.per_second:,.0f}"
        times = ("" if one is None else f"{one:,.0f}" for one in (each.p50_us, each.p99_us))
        cpu = "" if each.cpu_us is None else f"{each.cpu_us:,.1f}"
        table.add_row(str(each.qos), each.path, f"{each.messages:,}", rate, *times, cpu)
    return table
