"""What one read asks for, and how its settlements leave with the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import attrs

from catga_redis.names import StreamKey
from catga_redis.wire import Line, Wire

if TYPE_CHECKING:
    import asyncio

    from catga_redis.streams import LogSubscription

__all__ = ["Ask", "SharedLine", "asks"]

_QUIET = 8
"""The share of the room that is kept for streams in which nothing waits, while one is busy."""


@attrs.frozen
class Ask:
    """One command of a read: at most so many entries of each of these streams."""

    count: int
    streams: tuple[tuple[LogSubscription, StreamKey], ...]


def asks(hungry: Iterable[LogSubscription], most: int) -> list[Ask]:
    """Divide the room of each subscription among its streams, and never ask for more than that.

    A stream whose last read brought all that was asked for has more, so it gets nearly all the
    room, in a command of its own: one command asks for the same number of each. And of a window
    only a part at a time, so that the server and the handlers work side by side.
    """
    found: list[Ask] = []
    quiet: list[tuple[LogSubscription, StreamKey]] = []
    least = most
    for each in hungry:
        room, share = each.room, each.room // len(each.streams)
        rest = [(each, stream) for stream in each.streams if stream not in each.busy]
        if each.busy:
            room = min(room, each.part)
            share = max(1, room // _QUIET // len(each.streams))
            left = (room - share * len(rest)) // len(each.busy)
            busy = tuple((each, stream) for stream in each.streams if stream in each.busy)
            found.append(Ask(min(max(1, left), most), busy))
        if rest:
            quiet += rest
            least = min(least, max(1, share))
    return [*found, Ask(least, tuple(quiet))] if quiet else found


class SharedLine(Line):
    """Carries settlements over the connection of the reads, where no read holds them up there.

    A round trip is most of what a batch costs, and so it is shared.
    """

    def __init__(self, wire: Wire, other: Line, is_free: Callable[[], bool]) -> None:
        self._wire = wire
        self._other = other
        self._is_free = is_free

    def _pick(self) -> Line:
        return self._wire if self._wire.connected and self._is_free() else self._other

    @property
    def connected(self) -> bool:
        """Whether commands can be sent now."""
        return self._pick().connected

    def request(
        self, packed: bytes, replies: int = 1, patience: float | None = None
    ) -> asyncio.Future[list[Any]] | Any:
        """Send packed commands, and return their replies."""
        return self._pick().request(packed, replies, patience)

    def post(self, packed: bytes, replies: int = 1) -> bool:
        """Send packed commands whose replies nobody waits for."""
        return self._pick().post(packed, replies)

    async def room(self) -> None:
        """Return once there is room."""
        await self._pick().room()
