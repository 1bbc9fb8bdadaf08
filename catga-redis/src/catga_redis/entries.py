"""Reading what a stream holds: entries of ours, and of strangers."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["entry_order", "read_fields"]


def read_fields(fields: Sequence[bytes]) -> tuple[bytes, dict[str, str] | None]:
    """Return the body, and what else an entry that is not of our making carries, as headers."""
    if len(fields) == 2 and fields[0] == b"b":
        return fields[1], None
    pairs = dict(zip(fields[::2], fields[1::2], strict=False))
    body = pairs.pop(b"b", b"")
    return body, {
        name.decode(errors="backslashreplace"): value.decode(errors="backslashreplace")
        for name, value in pairs.items()
    }


def entry_order(id_: bytes) -> tuple[int, int]:
    """Return what sorts entry ids as the server does."""
    milliseconds, _, sequence = id_.partition(b"-")
    return int(milliseconds), int(sequence)
