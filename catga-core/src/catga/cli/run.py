"""`catga run`: one bus as a process, from the first signal drained, from the second ended."""

from __future__ import annotations

import asyncio
import importlib
import logging
import signal
import sys
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import click

from catga.cli.errors import CommandFailed, is_verbose, verbose_option
from catga.model.outcome import Drained

__all__ = ["run"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@runtime_checkable
class _Runnable(Protocol):
    """What is needed of a bus."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *details: object) -> bool | None: ...

    async def drain(self) -> Drained: ...


@click.command
@click.argument("target", metavar="MODULE:BUS")
@verbose_option
def run(target: str) -> None:
    """Run a bus until it is told to stop.

    MODULE:BUS names the object, e.g. `billing.app:bus`; the module is looked for in the current
    folder too. The first Ctrl-C or SIGTERM drains the bus: what is in hand is finished, the rest
    is given back. The second ends the process at once.
    """
    logging.basicConfig(
        level=logging.DEBUG if is_verbose() else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    report = asyncio.run(_serve(_load(target)))
    click.echo(
        f"stopped: {report.handled} handled, {report.returned} given back, "
        f"{report.abandoned} abandoned",
        err=True,
    )


def _load(target: str) -> _Runnable:
    module_name, colon, path = target.partition(":")
    if not (module_name and colon and path):
        raise click.BadParameter(
            f"{target!r} is not of the form MODULE:BUS", param_hint="MODULE:BUS"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # the script of an installed program does not look there
    try:
        found: Any = importlib.import_module(module_name)
        for name in path.split("."):
            found = getattr(found, name)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise CommandFailed(f"cannot load {target!r}: {what} (-v shows where)") from error
    if not isinstance(found, _Runnable) or isinstance(found, type):
        raise CommandFailed(f"{target!r} is a {type(found).__name__}, not a bus")
    return found


async def _serve(bus: _Runnable) -> Drained:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal() -> None:
        stop.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            # Python's own handler would raise KeyboardInterrupt and wait for every task to end;
            # somebody who asks twice wants the system's: the process is gone.
            signal.signal(number, signal.SIG_DFL)

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal)
    async with bus:
        click.echo(f"running {bus!r}; Ctrl-C drains and stops it", err=True)
        await stop.wait()
        click.echo("stopping; Ctrl-C again ends it at once", err=True)
        return await bus.drain()
