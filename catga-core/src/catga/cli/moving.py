"""Replaying and removing dead letters for `catga dead-letters replay` and `purge`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import attrs
import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from catga.cli.errors import CommandFailed
from catga.cli.letters import Asked, facts, opened, search, table, warn
from catga.cli.terminal import INTERRUPTED, console, printable, until_signal
from catga.engine.letterbox import DeadLetters
from catga.engine.replaying import MAX_REPLAYS, Fate, FoundLetter, Replayer, Result
from catga.errors import CatgaError
from catga.settings import parse_url

__all__ = ["Move", "move_letters"]

_BATCH = 100
_LISTED = 20


@attrs.frozen
class Move:
    """What is to be done with the letters."""

    verb: str
    done: str
    """In the words of the report."""
    max_replays: int | None = None
    """Of a replay; None removes for good."""


@attrs.define
class _Tally:
    """What became of the letters so far."""

    move: Move
    meant: set[str]
    """The places of those that were there at the start. What is parked later is not meant: a
    replay that fails again at once would be replayed for ever."""
    done: int = 0
    gone: int = 0
    left: list[Result] = attrs.field(factory=list)
    interrupted: bool = False
    error: CatgaError | None = None

    def add(self, results: list[Result]) -> None:
        """Count a batch."""
        for result in results:
            self.meant.discard(result.found.place)
            self.done += result.fate is Fate.DONE
            self.gone += result.fate is Fate.GONE
            if result.fate in {Fate.REFUSED, Fate.FAILED}:
                self.left.append(result)

    @property
    def status(self) -> int:
        """The exit status."""
        if self.interrupted:
            return INTERRUPTED
        return 1 if self.left else 0


async def move_letters(
    asked: Asked, move: Move, *, dry_run: bool, rate: float | None, yes: bool
) -> int:
    """Find the letters, ask, do it; return the exit status."""
    stop = asyncio.Event()
    # Until all is closed: what was done by then is told.
    async with contextlib.AsyncExitStack() as until:
        signals = until.enter_context(contextlib.ExitStack())
        letters = await until.enter_async_context(opened(asked))
        replayer = letters.replayer(MAX_REPLAYS if move.max_replays is None else move.max_replays)
        if dry_run:
            return await _rehearse(letters, asked, move, replayer)
        meant = {found.place async for found in search(letters, asked)}
        unsure = warn(letters)
        if meant and not yes:
            _confirm(f"{move.verb} {_letters(len(meant))} at {asked.shown}?")
        tally = _Tally(move, meant)
        total = len(meant)
        signals.enter_context(until_signal(stop))
        try:
            await _move_all(letters, asked, replayer, tally, rate, stop)
        except CatgaError as error:
            tally.error = error
        for group, reason in replayer.unknown.items():
            words = f"unknown: whether {group} is still there: {reason}"
            click.echo(printable(words), err=True)
    _report(asked, move, tally, total)
    if tally.error is not None:
        raise CommandFailed(str(tally.error)) from tally.error
    return tally.status or int(unsure)


async def _rehearse(letters: DeadLetters, asked: Asked, move: Move, replayer: Replayer) -> int:
    """Show what would be done, and do nothing."""
    listed, reasons = [], []
    async for found in search(letters, asked):
        listed.append(facts(found))
        reasons.append("" if move.max_replays is None else await replayer.refusal(found))
    unsure = warn(letters)
    if asked.in_json:
        pairs = zip(listed, reasons, strict=True)
        shown = [{**each, "refused": reason or None} for each, reason in pairs]
        click.echo(json.dumps(shown, ensure_ascii=False))
    else:
        if listed:
            console().print(table(listed, reasons if any(reasons) else ()))
        refused = sum(map(bool, reasons))
        words = f"; {refused} would be refused" if refused else ""
        click.echo(f"{_letters(len(listed) - refused)} would be {move.done}{words}")
    return 1 if unsure else 0


def _confirm(question: str) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(f"{question} There is no terminal to ask at: add --yes")
    # The loop's own handler would only note a Ctrl-C while the question is waited on.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yes = click.confirm(question, err=True)
    except click.Abort:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)
    if not yes:
        raise click.Abort


async def _move_all(
    letters: DeadLetters,
    asked: Asked,
    replayer: Replayer,
    tally: _Tally,
    rate: float | None,
    stop: asyncio.Event,
) -> None:
    """Work through the letters, a batch at a time, until told to stop."""
    size = _BATCH if rate is None else max(1, min(_BATCH, int(rate)))
    began, sent = time.monotonic(), 0
    with _progress(tally) as advance:
        async for batch in _batches(letters, asked, tally.meant, size):
            if rate is not None:
                await _wait(stop, began + sent / rate - time.monotonic())
            if stop.is_set():
                break
            if tally.move.max_replays is None:
                results = await letters.purge(batch)
            else:
                results = await replayer.replay(batch)
            tally.add(results)
            sent += len(batch)
            advance(len(batch))
    tally.gone += 0 if stop.is_set() else len(tally.meant)
    tally.interrupted = stop.is_set()


async def _batches(
    letters: DeadLetters, asked: Asked, meant: set[str], size: int
) -> AsyncIterator[list[FoundLetter]]:
    batch: list[FoundLetter] = []
    async for found in letters.find(asked.wanted):
        if found.place in meant:
            batch.append(found)
        if len(batch) == size:
            yield batch
            batch = []
        if not meant:
            return
    if batch:
        yield batch


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    if seconds > 0:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)


@contextmanager
def _progress(tally: _Tally) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error, when somebody looks at it; what is yielded moves it on."""
    screen = console(errors=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )
    with bar:
        task = bar.add_task(tally.move.verb, total=len(tally.meant))
        yield lambda count: bar.advance(task, count)


def _letters(count: int) -> str:
    return f"{count} dead letter{'' if count == 1 else 's'}"


def _report(asked: Asked, move: Move, tally: _Tally, total: int) -> None:
    if asked.in_json:
        fields = {
            "url": parse_url(asked.url)[0].shown,
            "namespace": asked.namespace,
            "action": move.verb,
            "meant": total,
            "done": tally.done,
            "gone": tally.gone,
            "left": [
                {"id": each.found.place, "why": each.fate.value, "reason": each.reason}
                for each in tally.left
            ],
            "interrupted": tally.interrupted,
        }
        click.echo(json.dumps(fields, ensure_ascii=False))
        return
    words = f"{tally.done} of {_letters(total)} {move.done}"
    if tally.gone:
        words += f", {tally.gone} had been by others"
    if tally.left:
        words += f", {len(tally.left)} left as they are"
    if tally.interrupted:
        words += "; interrupted, the rest is untouched"
    click.echo(words)
    for result in tally.left[:_LISTED]:
        click.echo(printable(f"{result.fate}: {result.found.place}: {result.reason}"), err=True)
    if len(tally.left) > _LISTED:
        click.echo(f"… and {len(tally.left) - _LISTED} more", err=True)
