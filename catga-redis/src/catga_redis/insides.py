"""What the client's connection keeps to itself, looked at in one place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hiredis
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio.connection import Connection

__all__ = ["abort", "is_gone", "replies_there", "unfinished_bytes"]


def is_gone(connection: Connection) -> bool:
    """Say whether the socket has gone though the connection does not know it yet.

    The client writes with `writelines`, which in CPython 3.12 and 3.13 watches the number of a
    socket that was lost, and then breaks whatever has that number next.
    """
    writer = getattr(connection, "_writer", None)
    return writer is None or writer.transport.is_closing()


def abort(connection: Connection) -> None:
    """End the socket now, whatever still waits to be written on it.

    The client only closes it: then asyncio first waits for a peer that reads no more, and so does
    whoever is in the middle of a write.
    """
    writer = getattr(connection, "_writer", None)
    if writer is not None:
        writer.transport.abort()


def replies_there(connection: Connection) -> Iterator[Any]:
    """Yield the replies that were read together with the last one; error replies as values.

    Where the client has another parser, they come one by one.
    """
    reader = _parser_of(connection)
    return iter(()) if reader is None else iter(reader.gets, NOT_ENOUGH_DATA)


def unfinished_bytes(connection: Connection) -> int:
    """Return how much of a reply has come that is not there as a whole; 0 for another parser."""
    reader = _parser_of(connection)
    return 0 if reader is None else reader.len()


def _parser_of(connection: Connection) -> hiredis.Reader | None:
    reader = getattr(getattr(connection, "_parser", None), "_reader", None)
    return reader if isinstance(reader, hiredis.Reader) else None
