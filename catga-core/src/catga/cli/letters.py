"""Looking at dead letters for `catga dead-letters list` and `show`."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import click
from rich.table import Table

from catga.bus import Bus
from catga.cli.terminal import console, printable
from catga.codecs import read_envelope
from catga.engine.deadletters import DeadLetter
from catga.engine.letterbox import DeadLetters, LetterFilter
from catga.engine.replaying import FoundLetter
from catga.errors import DecodeError
from catga.settings import parse_url

__all__ = ["Asked", "facts", "list_letters", "opened", "search", "show_letters", "table", "warn"]

_ROWS = 100
_ERROR = 80


@attrs.frozen
class Asked:
    """What was asked for on the command line."""

    url: str = attrs.field(repr=False)
    namespace: str
    wanted: LetterFilter
    limit: int | None
    in_json: bool

    @property
    def shown(self) -> str:
        """The place, without credentials."""
        return f"{parse_url(self.url)[0].shown}, namespace {self.namespace}"


@asynccontextmanager
async def opened(asked: Asked) -> AsyncIterator[DeadLetters]:
    """Yield the dead letters of the place."""
    service = "catga-dead-letters"
    async with Bus(asked.url, service=service, namespace=asked.namespace, consume=False) as bus:
        yield bus.dead_letters


async def search(letters: DeadLetters, asked: Asked) -> AsyncIterator[FoundLetter]:
    """Yield what is meant, at most `limit`."""
    count = 0
    async for found in letters.find(asked.wanted):
        yield found
        count += 1
        if count == asked.limit:
            return


def warn(letters: DeadLetters) -> bool:
    """Say on standard error what could not be looked at; tell whether there was any."""
    for subject, reason in letters.unknown.items():
        words = f"unknown: {subject.group}/{subject.type} may not be read: {reason}"
        click.echo(printable(words), err=True)
    return bool(letters.unknown)


async def list_letters(asked: Asked) -> int:
    """Write the table or the array; return the exit status."""
    rows = asked.limit or _ROWS
    if not asked.in_json:
        asked = attrs.evolve(asked, limit=rows + 1)
    async with opened(asked) as letters:
        # Without bodies and tracebacks: there may be very many.
        listed = [facts(found) async for found in search(letters, asked)]
        unsure = warn(letters)
    if asked.in_json:
        click.echo(json.dumps(listed, ensure_ascii=False))
    elif listed:
        console().print(table(listed[:rows]))
        if len(listed) > rows:
            click.echo(f"the first {rows}; --limit shows more")
    else:
        click.echo(f"no dead letters at {asked.shown}" + _as_asked(asked))
    return 1 if unsure else 0


def _as_asked(asked: Asked) -> str:
    return "" if asked.wanted == LetterFilter() else " that are as asked for"


def facts(found: FoundLetter) -> dict[str, Any]:
    """Return what a list shows of a letter; what cannot be read is null."""
    letter, subject = found.letter, found.stored.subject
    known: dict[str, Any] = dict.fromkeys(_FACTS)
    if letter is not None:
        known |= {name: getattr(letter, name) for name in _FACTS}
        known["parked_at"] = letter.parked_at.isoformat()
        known["created_at"] = None if letter.created_at is None else letter.created_at.isoformat()
        known["subject"] = letter.subject.text
        known["body_bytes"] = letter.body_left_out or len(letter.body)
        known["body_kept"] = not letter.body_left_out
    return {
        "id": found.place,
        "group": subject.group,
        "type": subject.type,
        **known,
        "unreadable": found.unreadable or None,
    }


_FACTS = (
    *("message_id", "cause", "error", "attempts", "replays", "created_at", "parked_at"),
    *("subject", "sequence"),
)


def table(listed: Sequence[dict[str, Any]], reasons: Sequence[str] = ()) -> Table:
    """Return the letters as a table; `reasons` say what stands against each, if anything."""
    shown = Table()
    titles = ["id", "message id", "cause", "error", "attempts", "replays", "parked"]
    for title in titles + ["refused"] * bool(reasons):
        justify: Any = "right" if title in {"attempts", "replays"} else "left"
        shown.add_column(title, overflow="fold", justify=justify)
    for place, each in enumerate(listed):
        error = each["error"] if each["unreadable"] is None else each["unreadable"]
        cells = (
            each["id"],
            each["message_id"],
            "(unreadable)" if each["cause"] is None else each["cause"],
            error if len(error) <= _ERROR else f"{error[:_ERROR]}…",
            each["attempts"],
            each["replays"],
            (each["parked_at"] or "")[:19],
            *reasons[place : place + 1],
        )
        shown.add_row(*("" if cell is None else printable(str(cell)) for cell in cells))
    return shown


# ---- one by one


async def show_letters(asked: Asked) -> int:
    """Write each with everything that is known; return the exit status."""
    shown: list[dict[str, Any]] = []
    async with opened(asked) as letters:
        async for found in search(letters, asked):
            if asked.in_json:
                shown.append(_everything(found))
            else:
                shown.append({})
                click.echo(printable(_page(found)))
        unsure = warn(letters)
    if asked.in_json:
        click.echo(json.dumps(shown))  # in ASCII: a message may hold half of a character
    elif not shown:
        click.echo(f"no dead letters at {asked.shown}" + _as_asked(asked), err=True)
    return 1 if unsure or not shown else 0


def _everything(found: FoundLetter) -> dict[str, Any]:
    letter = found.letter
    body = found.stored.body if letter is None else letter.body
    return {
        **facts(found),
        "traceback": None if letter is None else letter.traceback,
        "headers": None if letter is None or letter.headers is None else dict(letter.headers),
        "message": None if letter is None else _message(letter),
        "body_base64": base64.b64encode(body).decode(),
    }


def _message(letter: DeadLetter) -> Any:
    """Return the data of the original, decoded; None when it cannot be read, or not be written as
    JSON again."""
    try:
        data = json.loads(read_envelope(letter.body, letter.headers).data)
        json.dumps(data, allow_nan=False)
        return data
    except (DecodeError, ValueError, RecursionError):
        return None


def _page(found: FoundLetter) -> str:
    lines = [
        f"{name + ':':12} {value}" for name, value in facts(found).items() if value is not None
    ]
    letter = found.letter
    if letter is None:
        return "\n".join([*lines, "", "as it is stored:", _text(found.stored.body), ""])
    if letter.traceback:
        lines += ["", letter.traceback.rstrip()]
    if letter.body_left_out:
        return "\n".join([*lines, "", "the body was too large to be kept", ""])
    message = _message(letter)
    if message is None:
        return "\n".join([*lines, "", "body:", _text(letter.body), ""])
    decoded = json.dumps(message, indent=2, ensure_ascii=False)
    return "\n".join([*lines, "", "message:", decoded, ""])


def _text(body: bytes) -> str:
    return body.decode("utf-8", "backslashreplace")
