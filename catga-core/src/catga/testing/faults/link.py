"""One connection through the proxy."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol, TypeAlias

import attrs

__all__ = ["TAIL_BYTES", "FaultCounts", "Link", "Rules", "Trap", "Way"]

_CHUNK = 1 << 16
TAIL_BYTES = 256
"""A needle is found across the border of two writes when it is no longer than this."""
_LAST_SECONDS = 1.0
Stream: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@attrs.define
class FaultCounts:
    """What happened at a proxy since it started."""

    links: int = 0
    """Connections that were let through to the server."""
    refused: int = 0
    """Connections that were reset at once, also because no server answered."""
    cut: int = 0
    """Links that a fault has broken."""
    client_writes: int = 0
    server_writes: int = 0
    dropped_bytes: int = 0
    """What neither side will ever get."""


@attrs.define(eq=False)
class Way:
    """What befalls the bytes in one direction."""

    delay: float = 0.0
    dropping: bool = False
    _free: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self._free.set()

    def hold(self, on: bool) -> None:
        """Hold bytes back, or let them go on."""
        (self._free.clear if on else self._free.set)()

    async def pass_through(self) -> None:
        """Return when bytes may go on."""
        if self.delay:
            await asyncio.sleep(self.delay)
        await self._free.wait()


@attrs.define(eq=False)
class Trap:
    """Waits for one client write: the k-th, or one with a needle in it."""

    writes: int = 0
    needle: bytes = b""
    after: bool = False
    """Whether the server still gets the write."""
    answer: bool = False
    """Whether the server's answer is awaited before the client sees the cut."""
    sprung: asyncio.Event = attrs.field(factory=asyncio.Event)

    def meets(self, tail: bytes, data: bytes) -> bool:
        """Say whether this write is the one; `tail` is the end of the write before."""
        if self.needle:
            return self.needle in data or self.needle in tail + data[:TAIL_BYTES]
        self.writes -= 1
        return self.writes == 0


class Rules(Protocol):
    """What a link asks its proxy."""

    up: Way
    down: Way
    counts: FaultCounts

    def caught(self, tail: bytes, data: bytes) -> Trap | None:
        """Count one client write; return the trap when it springs at this one."""


class Link:
    """A client, its server, and the bytes between them."""

    def __init__(self, client: Stream, server: Stream, rules: Rules) -> None:
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server
        self._rules = rules
        self._ended: set[asyncio.StreamWriter] = set()
        self._pumps: list[asyncio.Task[None]] = []
        self._answered = asyncio.Event()
        self._muted = False
        self.holed = False
        """Whether bytes of it were dropped."""

    async def serve(self) -> None:
        """Pass bytes both ways until both directions have ended, or `abort`."""
        self._pumps = [asyncio.create_task(self._up()), asyncio.create_task(self._down())]
        try:
            await asyncio.wait(self._pumps)
        finally:
            self._reset()

    def abort(self) -> None:
        """Reset both sides, now."""
        if not all(pump.done() for pump in self._pumps):
            self._rules.counts.cut += 1
        self._reset()

    def _reset(self) -> None:
        for pump in self._pumps:
            pump.cancel()
        self._to_client.transport.abort()
        self._to_server.transport.abort()

    def half_close(self, *, up: bool, down: bool) -> None:
        """Send FIN to the server, to the client."""
        if up:
            self._end(self._to_server)
        if down:
            self._end(self._to_client)

    def _end(self, writer: asyncio.StreamWriter) -> None:
        self._ended.add(writer)
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()

    async def _up(self) -> None:
        tail = b""
        try:
            while data := await self._from_client.read(_CHUNK):
                trap = self._rules.caught(tail, data)
                if trap is not None:
                    await self._spring(trap, data)
                    return
                tail = data[-TAIL_BYTES:]
                await self._pass_on(data, self._to_server, self._rules.up)
        except OSError:
            pass  # the client reset it: for the server that is an end like another
        self._end(self._to_server)

    async def _down(self) -> None:
        try:
            while data := await self._from_server.read(_CHUNK):
                self._rules.counts.server_writes += 1
                self._answered.set()
                await self._pass_on(data, self._to_client, self._rules.down)
        except OSError:
            pass
        self._answered.set()
        self._end(self._to_client)

    async def _pass_on(self, data: bytes, writer: asyncio.StreamWriter, way: Way) -> None:
        await way.pass_through()
        if way.dropping or writer in self._ended or (self._muted and writer is self._to_client):
            self._rules.counts.dropped_bytes += len(data)
            self.holed = True
            return
        writer.write(data)
        await writer.drain()

    async def _spring(self, trap: Trap, data: bytes) -> None:
        self._rules.counts.cut += 1
        self._muted = True
        if trap.after:
            self._answered.clear()
            self._to_server.write(data)
            with contextlib.suppress(OSError):
                await self._to_server.drain()
            if trap.answer:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._answered.wait(), _LAST_SECONDS)
        self._to_client.transport.abort()
        trap.sprung.set()
        if trap.after:
            # A reset could overtake the write: end it in order, and let the server close.
            self._end(self._to_server)
            await asyncio.wait([self._pumps[1]], timeout=_LAST_SECONDS)
        self._reset()
