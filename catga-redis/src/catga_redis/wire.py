"""One owned connection: commands of one loop turn leave together, replies come back in order."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any

import attrs
import hiredis
from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError

from catga.errors import CatgaError, ConnectionLost
from catga.spi import EventKind, Runtime, TransportEvent, end_all
from catga_redis.dial import Dialer
from catga_redis.errors import REPLY_ERRORS, ReplyLost, translate
from catga_redis.insides import abort, is_gone, replies_there, unfinished_bytes

__all__ = ["Line", "Wire", "begin_command", "pack_command", "with_last"]

pack_command: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command
"""Write one command as the server reads it. (The client's stub knows tuples of one only.)"""

_LAST_EMPTY = len(b"$0\r\n\r\n")
_HIGH_WATER = 1 << 18
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_WATCH_EVERY = 0.25
# A shard's channels are also ended unasked, when their slot moves: so it is never an answer here.
_PUSHES = frozenset({b"message", b"pmessage", b"smessage", b"sunsubscribe"})


@lru_cache(maxsize=256)
def begin_command(*words: bytes | str) -> bytes:
    """Return what is the same in every command with these words, up to its last word."""
    return pack_command((*words, b""))[:-_LAST_EMPTY]


def with_last(begun: bytes, word: bytes) -> bytes:
    """Return a command of `begin_command` with its last word."""
    return b"%b$%d\r\n%b\r\n" % (begun, len(word), word)


class Line(ABC):
    """What carries commands to a server, and their replies back in order."""

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether commands can be sent now."""

    @abstractmethod
    def request(
        self, packed: bytes, replies: int = 1, patience: float | None = None
    ) -> Awaitable[list[Any]]:
        """Send packed commands and return that many replies, error replies as values.

        Raises `ConnectionLost` (not sent) or `ReplyLost`.
        """

    @abstractmethod
    def post(self, packed: bytes, replies: int = 1) -> bool:
        """Send packed commands whose replies nobody waits for; False when not connected."""

    @abstractmethod
    async def room(self) -> None:
        """Return once the output buffer is below its bound (at once, most of the time)."""

    async def call(self, *command: Any, patience: float | None = None) -> Any:
        """Send one command and return its reply; raises what the client made of an error."""
        reply = (await self.request(pack_command(command), 1, patience))[0]
        if isinstance(reply, Exception):
            raise reply
        return reply


@attrs.define(eq=False)
class _Request:
    packed: bytes
    left: int
    patience: float
    overdue: float
    future: asyncio.Future[list[Any]] | None
    replies: list[Any] = attrs.field(factory=list)
    sent: bool = False


class Wire(Line):
    """A connection that pipelines by itself and comes back by itself, but repeats nothing.

    When it breaks, everything that waits fails at once: with `ReplyLost` what was written, with
    `ConnectionLost` what was not.
    """

    def __init__(
        self,
        dialer: Dialer,
        runtime: Runtime,
        role: str,
        patience: float,
        *,
        greet: Callable[[], Awaitable[None]] | None = None,
        on_push: Callable[[list[Any]], None] | None = None,
    ) -> None:
        self._dialer = dialer
        self._runtime = runtime
        self._role = role
        self._patience = patience
        self._greet = greet
        self._on_push = on_push
        self._connection: Connection | None = None
        self._output: list[_Request] = []
        self._output_bytes = 0
        self._has_output = asyncio.Event()
        self._flushed = asyncio.Event()
        self._waiting: deque[_Request] = deque()
        self._broken: asyncio.Future[CatgaError] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._reads = 0
        self._dial_failure = ""
        self._closed = False
        self._corked = False
        self.up = asyncio.Event()
        """Set while connected."""
        self.refused = ""
        """What the server said to a greeting that is tried again; empty when none is."""

    @property
    def connected(self) -> bool:
        """Whether commands can be sent now."""
        return self._connection is not None

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def peer(self) -> tuple[str, int] | None:
        """The host and port of the server that this leads to now."""
        connection = self._connection
        return None if connection is None else (connection.host, int(connection.port))

    def leave(self, reason: str) -> None:
        """Break the connection, and dial again."""
        if self._connection is not None:
            self._break(self._connection, ConnectionLost(reason))

    async def open(self) -> None:
        """Connect within the bus's connect deadline, and stay connected until `close`."""
        connection = await self._dialer.dial_until(self._runtime)
        self._attach(connection)
        for work, name in (
            (self._keep(), "keep"),
            (self._write(), "write"),
            (self._watch(), "watch"),
        ):
            self._tasks.append(self._runtime.spawn(work, f"redis {self._role}: {name}"))
        if self._greet is not None:
            await self._greet()

    def request(
        self, packed: bytes, replies: int = 1, patience: float | None = None
    ) -> asyncio.Future[list[Any]]:
        """Send packed commands; the future gets that many replies, error replies as values.

        It fails with `ConnectionLost` (not sent) or `ReplyLost`.
        """
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        if self._connection is None:
            gone = self._dial_failure or f"not connected to {self._dialer.where}"
            future.set_exception(ConnectionLost(gone))
        else:
            self._push(packed, replies, future, patience or self._patience)
        return future

    def post(self, packed: bytes, replies: int = 1) -> bool:
        """Send packed commands whose replies nobody waits for; False when not connected."""
        if self._connection is None:
            return False
        self._push(packed, replies, None, self._patience)
        return True

    async def room(self) -> None:
        """Return once the output buffer is below its bound (at once, most of the time)."""
        while self._output_bytes > _HIGH_WATER and self._connection is not None:
            self._flushed.clear()
            await self._flushed.wait()

    def cork(self) -> None:
        """Let what comes from now on wait for `uncork`: it leaves with whatever comes then."""
        self._corked = True

    def uncork(self) -> None:
        """Send what has waited, at the end of this turn of the loop."""
        self._corked = False
        if self._output:
            self._has_output.set()

    async def answered(self, *, but: int = 0, timeout: float | None = None) -> None:
        """Return once all that was sent so far, `but` so many at the end, is answered or lost."""
        if len(self._waiting) > but:
            last = self._waiting[-1 - but]
            if last.future is None:
                last.future = asyncio.get_running_loop().create_future()
            done, _ = await asyncio.wait([last.future], timeout=timeout)
            for future in done:
                future.cancelled() or future.exception()  # nobody else may ask for it

    async def close(self) -> None:
        """Send what waits to be sent, await its replies briefly, disconnect. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self.uncork()
        await self.answered(timeout=1.0)
        await end_all(self._tasks)
        await self._detach(ConnectionLost("the transport is closed"))

    def _push(
        self,
        packed: bytes,
        replies: int,
        future: asyncio.Future[list[Any]] | None,
        patience: float,
    ) -> None:
        overdue = self._runtime.clock.monotonic() + patience
        request = _Request(packed, replies, patience, overdue, future)
        self._waiting.append(request)
        self._output.append(request)
        self._output_bytes += len(packed)
        if not self._corked:
            self._has_output.set()

    async def _write(self) -> None:
        while True:
            await self._has_output.wait()
            self._has_output.clear()
            output, self._output, self._output_bytes = self._output, [], 0
            connection = self._connection
            if connection is None or not connection.is_connected:
                continue  # what was in there has failed already, or is about to
            if is_gone(connection):
                self._break(connection, RedisConnectionError("the connection is lost"))
                continue
            for request in output:
                request.sent = True
            try:
                await connection.send_packed_command(
                    [request.packed for request in output], check_health=False
                )
            except Exception as error:
                self._break(connection, error)
            self._flushed.set()

    async def _read(self, connection: Connection) -> None:
        """Hand out replies until the connection ends."""
        read = connection.read_response
        try:
            while True:
                try:
                    reply = await read(disconnect_on_error=False)
                except REPLY_ERRORS as error:
                    reply = error
                self._reads += 1
                self._take(connection, reply)
                # What came with it, without the client's five calls for each.
                for reply in replies_there(connection):
                    self._take(connection, reply)
        except Exception as error:
            self._break(connection, error)

    def _take(self, connection: Connection, reply: Any) -> None:
        if isinstance(reply, RedisConnectionError) and not isinstance(reply, REPLY_ERRORS):
            raise reply
        if self._on_push is not None and isinstance(reply, list) and reply[0] in _PUSHES:
            self._on_push(reply)
            return
        request = self._waiting[0]
        request.left -= 1
        if request.future is not None:
            request.replies.append(reply)
        if request.left == 0:
            self._waiting.popleft()
            if request.future is not None and not request.future.done():
                request.future.set_result(request.replies)
        if isinstance(reply, Exception) and isinstance(reply, self._dialer.leaves_on):
            self._dialer.told(reply)
            self._break(connection, reply)  # another server is in charge now

    async def _watch(self) -> None:
        """Give up on a server that is silent for longer than the oldest request can bear.

        While something comes it is not: the answer may be long, and the line slow.
        """
        heard: tuple[int, int] | None = None
        while True:
            await self._runtime.clock.sleep(_WATCH_EVERY)
            now, connection = self._runtime.clock.monotonic(), self._connection
            if connection is None:
                continue
            before, heard = heard, (self._reads, unfinished_bytes(connection))
            if self._waiting and heard != before:
                self._waiting[0].overdue = now + self._waiting[0].patience
            elif self._waiting and self._waiting[0].overdue < now:
                self._break(connection, ConnectionLost(f"{self._dialer.where} is silent"))

    def _break(self, connection: Connection, error: Exception) -> None:
        if connection is self._connection and self._broken and not self._broken.done():
            self._broken.set_result(translate(error, self._dialer.where))

    def _attach(self, connection: Connection) -> None:
        self._connection = connection
        self._broken = asyncio.get_running_loop().create_future()
        name = f"{self._runtime.service}:{self._role}".replace(" ", "-")
        # A user without the right to name the connection gets an error reply nobody reads.
        self.post(pack_command((b"CLIENT", b"SETNAME", name)))
        self.up.set()

    async def _detach(self, error: CatgaError) -> None:
        connection, self._connection = self._connection, None
        self.up.clear()
        self._corked = False
        waiting = list(self._waiting)
        self._waiting.clear()
        self._output.clear()
        self._output_bytes = 0
        self._flushed.set()
        for request in waiting:
            if request.future is not None and not request.future.done():
                request.future.set_exception(_lost(request.sent, error))
        if connection is not None:
            abort(connection)
            await connection.disconnect(nowait=True)

    async def _keep(self) -> None:
        """Serve one connection after the other."""
        while self._connection is not None and self._broken is not None:
            reader = asyncio.create_task(self._read(self._connection), name=f"{self._role}: read")
            try:
                error = await self._broken
            finally:
                await end_all([reader])
            self._emit(EventKind.DISCONNECTED, str(error))
            await self._detach(error)
            self._attach(await self._dial_again())
            self._emit(EventKind.CONNECTED, f"{self._dialer.where} is back")
            if self._greet is not None:
                self._tasks.append(
                    self._runtime.spawn(self._greet_again(), f"redis {self._role}: greet")
                )

    async def _greet_again(self) -> None:
        """Greet until it is not refused; the next connection is greeted in its own turn."""
        self._tasks = [task for task in self._tasks if not task.done()]
        broken, self.refused = self._broken, ""
        while self._greet is not None and broken is not None and not broken.done():
            try:
                await self._greet()
                self.refused = ""
                break
            except CatgaError as error:
                if not broken.done() and str(error) != self.refused:
                    self.refused = str(error)
                    self._emit(EventKind.TROUBLE, self.refused)
            await self._runtime.clock.sleep(_LONGEST_PAUSE)

    async def _dial_again(self) -> Connection:
        pause = _FIRST_PAUSE
        self._dial_failure = ""
        while True:
            try:
                return await self._dialer.dial(self._patience)
            except CatgaError as error:
                if str(error) != self._dial_failure:
                    self._dial_failure = str(error)
                    self._emit(EventKind.TROUBLE, self._dial_failure)
            jitter = 0.5 + random.random() / 2  # noqa: S311 - spreads reconnects, no secret
            await self._runtime.clock.sleep(pause * jitter)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _emit(self, kind: EventKind, detail: str) -> None:
        self._runtime.emit(TransportEvent(kind, f"{self._role}: {detail}"))


def _lost(sent: bool, error: CatgaError) -> CatgaError:
    kind = ReplyLost if sent else ConnectionLost
    lost = kind(str(error))
    lost.__cause__ = error
    return lost
