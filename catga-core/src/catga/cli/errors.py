"""How the program speaks of what went wrong: one line, and where it happened only on request."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import IO, Any, TypeVar

import click

__all__ = ["CommandFailed", "is_verbose", "verbose_option"]

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
_VERBOSE = "catga.verbose"


class CommandFailed(click.ClickException):
    """Ends the program with status 1 and the line `error: …`."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self._verbose = is_verbose()  # asked here: when it is shown the context is gone

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the line to standard error, after the traceback of the cause when asked for."""
        if self.__cause__ is not None and self._verbose:
            lines = traceback.format_exception(self.__cause__)
            click.echo("".join(lines), file=file, err=True, nl=False)
        click.echo(f"error: {self.format_message()}", file=file, err=True)


def is_verbose() -> bool:
    """Say whether `--verbose` was given, before or behind the command."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().meta.get(_VERBOSE))


def _remember(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.find_root().meta[_VERBOSE] = True


def verbose_option(command: CommandT) -> CommandT:
    """Add `-v/--verbose` to a command."""
    return click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_remember,
        help="Log more, and show where an error was raised.",
    )(command)
