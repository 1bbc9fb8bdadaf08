"""`catga dead-letters`: its words and options. The work is done next door."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

from catga.cli.errors import CommandFailed, verbose_option
from catga.cli.letters import Asked, list_letters, show_letters
from catga.cli.moving import Move, move_letters
from catga.cli.numbers import Number
from catga.cli.terminal import INTERRUPTED, quiet
from catga.engine.letterbox import LetterFilter
from catga.engine.replaying import MAX_REPLAYS
from catga.plugins import installed_catalog
from catga.settings import parse_url
from catga.settings.values import convert

__all__ = ["dead_letters"]

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
_SHOWN = 10


def _moment(_: click.Context, __: click.Parameter, value: str | None) -> datetime | None:
    """Read `2026-01-31T08:00+01:00` (without a zone: local time), or `90m`, `2h`, `7d` ago."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.astimezone() if moment.tzinfo is None else moment
    except (ValueError, OverflowError):
        pass
    words = f"{value!r} is neither a time (2026-01-31T08:00) nor a span (2h)"
    if value.rstrip()[-1:].isdigit():  # a year, say: not so many seconds
        raise click.BadParameter(words)
    try:
        ago: timedelta = convert(value, timedelta)
        return datetime.now(UTC) - ago
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(words) from error


def _options(command: CommandT) -> CommandT:
    """Add the place, the filters and `--json`."""
    for option in reversed(
        (
            click.argument("url"),
            click.option(
                "--namespace", default="catga", show_default=True, metavar="NAME", help="Whose."
            ),
            click.option("--type", "types", multiple=True, metavar="NAME", help="Of this type."),
            click.option("--group", "groups", multiple=True, metavar="NAME", help="Of this group."),
            click.option(
                "--cause", default="", metavar="TEXT", help="With this in the cause or the error."
            ),
            click.option(
                "--since",
                callback=_moment,
                metavar="TIME",
                help="Parked then or later: a time, or how long ago (2h).",
            ),
            click.option("--before", callback=_moment, metavar="TIME", help="Parked earlier."),
            click.option(
                "--id",
                "ids",
                multiple=True,
                metavar="ID",
                help="The message id, or the letter's place GROUP/TYPE/SEQUENCE.",
            ),
            click.option("--limit", type=click.IntRange(1), metavar="N", help="At most so many."),
            click.option("--json", "in_json", is_flag=True, help="Write JSON."),
            verbose_option,
        )
    ):
        command = option(command)
    return command


def _moving_options(command: CommandT) -> CommandT:
    """Add what those have in common that change something."""
    for option in reversed(
        (
            click.option("--all", "everything", is_flag=True, help="All that there are."),
            click.option("--dry-run", is_flag=True, help="Only show what would be done."),
            click.option(
                "--rate",
                type=Number(0, min_open=True),
                metavar="N",
                help="At most N per second.",
            ),
            click.option("--yes", is_flag=True, help="Do not ask."),
        )
    ):
        command = option(command)
    return command


def _asked(given: dict[str, Any]) -> Asked:
    """Take what `_options` adds out of `given`. Raises `CommandFailed` for a place in memory."""
    wanted = LetterFilter(
        types=frozenset(given.pop("types")),
        groups=frozenset(given.pop("groups")),
        cause=given.pop("cause"),
        since=given.pop("since"),
        before=given.pop("before"),
        ids=frozenset(given.pop("ids")),
    )
    asked = Asked(wanted=wanted, **{name: given.pop(name) for name in _OF_ASKED})
    scheme = parse_url(asked.url)[0].scheme
    if installed_catalog().transport_for(scheme).in_process:
        raise CommandFailed(f"{scheme}:// lives in one process: use bus.dead_letters in there")
    return asked


_OF_ASKED = ("url", "namespace", "limit", "in_json")


@click.group("dead-letters")
def dead_letters() -> None:
    """Look after dead letters: what a group gave up on, kept with its cause and its bytes.

    Filters may be combined; one that is given several times means any of them.
    """


@dead_letters.command("list")
@_options
@click.pass_context
def list_(context: click.Context, /, **given: Any) -> None:
    """List dead letters, the oldest of each group and type first.

    A table shows 100 unless --limit says otherwise; --json writes one array of all of them. Exit
    status 1 when some could not be looked at.
    """
    _run(context, list_letters(_asked(given)))


@dead_letters.command("show")
@_options
@click.pass_context
def show(context: click.Context, /, **given: Any) -> None:
    """Show dead letters with everything that is known, traceback and body included.

    10 of them, unless --limit says otherwise. Exit status 1 when there is none.
    """
    _run(context, show_letters(_asked({**given, "limit": given["limit"] or _SHOWN})))


@dead_letters.command("replay")
@_options
@_moving_options
@click.option(
    "--max-replays",
    type=click.IntRange(1),
    default=MAX_REPLAYS,
    show_default=True,
    metavar="N",
    help="Refuse what came back so often already.",
)
@click.pass_context
def replay(context: click.Context, /, *, max_replays: int, **given: Any) -> None:
    """Send dead letters to the group that failed on them, once more; then remove them.

    No other group sees them again. The message id stays, attempts begin anew, and replaying the
    same letter twice stores one copy within the dedupe window. Refused, with the reason, is what
    has no body, came back too often, or has no group to go to.

    The first Ctrl-C ends it after the letters in hand, with a true count. Exit status 1 when some
    were refused or failed, 130 after Ctrl-C.
    """
    _move(context, Move("replay", "replayed", max_replays=max_replays), given)


@dead_letters.command("purge")
@_options
@_moving_options
@click.pass_context
def purge(context: click.Context, /, **given: Any) -> None:
    """Remove dead letters for good, without handling them.

    The first Ctrl-C ends it after the letters in hand, with a true count. Exit status 1 when some
    could not be removed, 130 after Ctrl-C.
    """
    _move(context, Move("purge", "removed for good"), given)


def _move(context: click.Context, move: Move, given: dict[str, Any]) -> None:
    asked = _asked(given)
    if given.pop("everything"):
        if asked.wanted != LetterFilter():
            raise click.UsageError("--all and a filter contradict each other: give one of them")
    elif asked.wanted == LetterFilter():
        raise click.UsageError("say which letters: a filter (--group, --type, --id, …), or --all")
    _run(context, move_letters(asked, move, **given))


def _run(context: click.Context, work: Coroutine[Any, Any, int]) -> None:
    with quiet():
        try:
            status = asyncio.run(work)
        except KeyboardInterrupt:
            click.echo("interrupted; nothing was changed", err=True)
            status = INTERRUPTED
    context.exit(status)
