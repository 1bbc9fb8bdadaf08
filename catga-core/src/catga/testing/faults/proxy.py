"""A TCP proxy on loopback that cuts, delays, drops and holds what passes through it."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Literal, Self

from catga.testing.faults.link import TAIL_BYTES, FaultCounts, Link, Trap, Way

__all__ = ["FaultCounts", "FaultProxy"]


class FaultProxy:
    """Stands between clients and the server at `target`, and passes everything on unless told.

    An async context manager. "Up" is from a client to the server. A *write* is what arrived from a
    client at once (at most 64 KiB): TCP keeps no other borders.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        """The loopback port of the server; a change holds for new links."""
        self.counts = FaultCounts()
        self.up = Way()
        self.down = Way()
        self._refusing = False
        self._trap: Trap | None = None
        self._links: dict[Link, asyncio.Task[None] | None] = {}
        self._server: asyncio.Server | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """Where clients connect to, on 127.0.0.1."""
        return self._port

    @property
    def links(self) -> int:
        """How many links there are now."""
        return len(self._links)

    async def start(self) -> Self:
        """Listen on a free port of loopback."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def close(self) -> None:
        """Cut everything and stop to listen. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        tasks = [task for task in self._links.values() if task is not None]
        self.cut()
        if tasks:
            await asyncio.wait(tasks)

    # -- faults, each until `heal`, except those that are over at once -------------------------

    def cut(self) -> None:
        """Break every link now, on both sides, with a reset."""
        for link in tuple(self._links):
            link.abort()

    def refuse(self, on: bool = True) -> None:
        """Reset whoever connects from now on; what is connected stays."""
        self._refusing = on

    def delay(self, up: float = 0.0, down: float = 0.0) -> None:
        """Let everything arrive so many seconds late, in order."""
        self.up.delay, self.down.delay = up, down

    def black_hole(self, up: bool = True, down: bool = True) -> None:
        """Drop everything silently. A link that has lost bytes is cut by `heal`: no TCP link
        lives on with a hole in it."""
        self.up.dropping, self.down.dropping = up, down

    def stall(self, up: bool = True, down: bool = True) -> None:
        """Hold everything back; `heal` delivers it late, even for a client that has gone."""
        self.up.hold(up)
        self.down.hold(down)

    def half_close(self, up: bool = True, down: bool = False) -> None:
        """End one direction of every link (FIN); the other stays open, what follows is dropped."""
        for link in tuple(self._links):
            link.half_close(up=up, down=down)

    def cut_at_write(self, k: int, when: Literal["before", "after"] = "before") -> asyncio.Event:
        """Cut the link of the k-th client write from now (1 is the next), before it is passed on,
        or after the server was given it and can no longer answer.

        Return an event that is set once it happened. Replaces another trap.
        """
        if k < 1 or when not in {"before", "after"}:
            raise ValueError(f"the {k}-th write cannot be cut {when!r} it is passed on")
        self._trap = Trap(writes=k, after=when == "after")
        return self._trap.sprung

    def lose_reply(self, needle: bytes) -> asyncio.Event:
        """Pass on the next client write that contains `needle`, swallow what the server answers
        (or at most a second of silence), then cut that link.

        Return an event that is set once it happened. Replaces another trap.
        """
        if not 0 < len(needle) <= TAIL_BYTES:
            raise ValueError(f"a needle has 1 to {TAIL_BYTES} bytes, not {len(needle)}")
        self._trap = Trap(needle=needle, after=True, answer=True)
        return self._trap.sprung

    def heal(self) -> None:
        """End every fault: what was held goes on, links that lost bytes are cut."""
        self._refusing = False
        self._trap = None
        for way in (self.up, self.down):
            way.delay, way.dropping = 0.0, False
            way.hold(False)
        for link in tuple(self._links):
            if link.holed:
                link.abort()

    # ------------------------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            self.counts.refused += 1
            writer.transport.abort()
            return
        try:
            server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            self.counts.refused += 1
            writer.transport.abort()
            return
        self.counts.links += 1
        link = Link((reader, writer), server, self)
        self._links[link] = asyncio.current_task()
        try:
            await link.serve()
        finally:
            del self._links[link]

    def caught(self, tail: bytes, data: bytes) -> Trap | None:
        """Count one client write; return the trap when it springs at this one."""
        self.counts.client_writes += 1
        trap = self._trap
        if trap is None or not trap.meets(tail, data):
            return None
        self._trap = None
        return trap

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
