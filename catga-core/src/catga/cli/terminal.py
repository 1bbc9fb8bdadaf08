"""What the commands that talk to a broker share: a quiet log, signals, tables, safe text."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from catga.cli.errors import is_verbose

__all__ = ["INTERRUPTED", "console", "printable", "quiet", "until_signal"]

INTERRUPTED = 130
"""The exit status after Ctrl-C."""
_UNPRINTABLE = re.compile(
    r"[^\n\t\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]|[\u202a-\u202e\u2066-\u2069]"
)


def console(*, errors: bool = False) -> Console:
    """Return where tables go; `errors` is the other stream."""
    # No markup: the words of others would be read as styles.
    made = Console(markup=False, highlight=False, stderr=errors)
    if not made.is_terminal:
        made.width = 120  # a file or a pipe has no width to keep to
    return made


def printable(text: str) -> str:
    """Return text of unknown origin so that it cannot steer the terminal."""
    return _UNPRINTABLE.sub(lambda found: ascii(found.group())[1:-1], text)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the log still unless asked: what is wrong is said by the command itself."""
    before = logging.root.manager.disable
    if is_verbose():
        logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s: %(message)s")
    else:
        logging.disable()
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def until_signal(stop: asyncio.Event) -> Iterator[None]:
    """Set `stop` at the first Ctrl-C or SIGTERM; the second ends the process at once."""
    loop, numbers = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)

    def on_signal() -> None:
        stop.set()
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in numbers:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
