"""What the examples share: reading a count, one-line errors, orders for workers, cleaning up."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable
from typing import TypeVar

from catga import AuthenticationError, ConnectionLost
from catga.settings import parse_url
from catga.spi import end_all
from catga.testing import remove_namespace

__all__ = ["clean_up", "count", "one_line", "until_input_ends", "until_terminated"]

T = TypeVar("T")
REMOVAL_SECONDS = 10.0


def count(text: str) -> int:
    """Read a number of at least 1 from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number, at least 1")
    return int(text)


def one_line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def until_input_ends() -> asyncio.Event:
    """Return what is set once standard input ends: who started this process stopped it, or died.

    What is wanted of it must have been read from there before.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def on_input() -> None:
        loop.remove_reader(sys.stdin)
        stop.set()

    loop.add_reader(sys.stdin, on_input)
    return stop


async def until_terminated(work: Awaitable[T]) -> T:
    """Await `work` in this task, which SIGTERM cancels, as Ctrl-C does."""
    running = asyncio.current_task()
    if running is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    return await work


async def clean_up(url: str, namespace: str, error: BaseException | None) -> None:
    """Remove a namespace after a run that ended with `error`, or say that it may be left behind."""
    if isinstance(error, ConnectionLost | AuthenticationError):
        return  # nothing came so far
    removing = asyncio.create_task(remove_namespace(url, namespace))
    try:
        await asyncio.wait([removing], timeout=REMOVAL_SECONDS)
    finally:
        await end_all([removing])
    failure: BaseException | None = TimeoutError("it took too long")
    if removing.done():
        with contextlib.suppress(asyncio.CancelledError):
            failure = removing.exception()
    if failure is not None and str(failure) != str(error):  # the same is said once
        where = f"namespace {namespace} at {parse_url(url)[0].shown}"
        print(f"perhaps left behind: {where}: {one_line(failure)}", file=sys.stderr)
