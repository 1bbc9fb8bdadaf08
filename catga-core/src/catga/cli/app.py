"""The group of all commands: our own, and those that plugins bring."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import click

from catga.cli.bench import bench
from catga.cli.dead_letters import dead_letters
from catga.cli.errors import CommandFailed, verbose_option
from catga.cli.nodes import nodes
from catga.cli.plugins import plugins
from catga.cli.run import run
from catga.cli.terminal import INTERRUPTED
from catga.cli.verify import verify
from catga.errors import CatgaError
from catga.plugins import installed_catalog
from catga.spi import SPI_VERSION, CommandDescriptor

__all__ = ["main"]


class _Program(click.Group):
    """Finds the commands of plugins, and turns Catga's errors into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names; a plugin's command cannot replace one of ours."""
        names = {command.name for command in installed_catalog().commands}
        return sorted(names | set(super().list_commands(ctx)))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return our command of this name, or else a plugin's."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        for descriptor in installed_catalog().commands:
            if descriptor.name == cmd_name:
                return _load(descriptor)
        return None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; Ctrl-C that it does not handle itself is exit status 130."""
        try:
            return super().invoke(ctx)
        except CatgaError as error:
            raise CommandFailed(str(error)) from error
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)


def _load(descriptor: CommandDescriptor) -> click.Command:
    """Load a plugin's command; when that fails, one that says so, or `--help` would be lost."""
    failure: Exception | None = None
    try:
        command = descriptor.load()
        if isinstance(command, click.Command):
            return command
        reason = f"it is a {type(command).__name__}, not a click command"
    except Exception as error:
        failure = error
        reason = f"{type(error).__name__}: {error}"

    def refuse() -> None:
        raise CommandFailed(
            f"the command {descriptor.name!r} cannot be used: {reason}"
        ) from failure

    return click.Command(descriptor.name, callback=refuse, help="(cannot be used)")


@click.group(
    cls=_Program,
    context_settings={"help_option_names": ["-h", "--help"]},
    commands=[bench, dead_letters, nodes, plugins, run, verify],
)
@click.version_option(
    importlib.metadata.version("catga-core"),
    message=f"catga-core %(version)s (plugin interface {SPI_VERSION})",
)
@verbose_option
def main() -> None:
    """Message transport with delivery guarantees, over process memory, NATS and Redis.

    Transports are plugins: `catga plugins` lists what is installed.
    """
