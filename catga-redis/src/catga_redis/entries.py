"""What a stream holds: entries of ours as they are written and read, and those of strangers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from catga.spi import Outgoing

__all__ = ["Entry", "carried_fields", "entry_order", "read_fields"]

_ATTEMPTS = b"catga-attempts"
_REPLAYS = b"catga-replays"
_DIGITS = 9


class Entry(NamedTuple):
    """What one entry carries."""

    body: bytes
    attempts: int = 0
    """Made on another copy, before this one was written."""
    replays: int = 0
    headers: dict[str, str] | None = None
    """What else stands in an entry that is not of our making."""


def carried_fields(out: Outgoing) -> tuple[Any, ...]:
    """Return the fields beside the body: none for almost every message."""
    fields: tuple[Any, ...] = ()
    if out.attempts > 0:
        fields += (_ATTEMPTS, out.attempts)
    if out.replays > 0:
        fields += (_REPLAYS, out.replays)
    return fields


def read_fields(fields: Sequence[bytes]) -> Entry:
    """Return what an entry carries, whoever wrote it."""
    pairs = dict(zip(fields[::2], fields[1::2], strict=False))
    body = pairs.pop(b"b", b"")
    attempts, replays = _number(pairs, _ATTEMPTS), _number(pairs, _REPLAYS)
    headers = {
        name.decode(errors="backslashreplace"): value.decode(errors="backslashreplace")
        for name, value in pairs.items()
    }
    return Entry(body, attempts, replays, headers or None)


def _number(pairs: dict[bytes, bytes], name: bytes) -> int:
    """Take a count out; what is no count stays, as any stranger's field does."""
    value = pairs.get(name, b"")
    if not value.isdigit() or len(value) > _DIGITS:
        return 0
    del pairs[name]
    return int(value)


def entry_order(id_: bytes) -> tuple[int, int]:
    """Return what sorts entry ids as the server does."""
    milliseconds, _, sequence = id_.partition(b"-")
    return int(milliseconds), int(sequence)
