"""The client of nats-py, guarded where it was measured to fall.

Each override names its trap; all were measured with nats-py 2.16 on nats-server 2.10 and 2.15.
The overridden names are private: the dependency has an upper bound, and a test fails when one is
gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias
from weakref import WeakSet

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.errors import Error, StaleConnectionError

from catga.spi import end_all
from catga_nats.headers import MESSAGE_ID
from catga_nats.parser import Message, OnePassParser

__all__ = ["ClearTextError", "GuardedClient", "OnMessages", "Sent", "frame", "plain_frame"]

OnMessages = Callable[[Sequence[Message]], None]
"""Takes in what came together; it must not raise."""
Sent: TypeAlias = tuple[str, bytes, str]
"""Subject, payload, and where the answer goes, if one is wanted."""

_OWN_HEADER = f"NATS/1.0\r\n{MESSAGE_ID}: ".encode()
_ROOM_BYTES = 1 << 20
_LARGE = 1 << 12
"""Bytes that are worth a system call of their own."""
_FLUSH_SECONDS = 5.0
_SHORT = 64
_STATUS_PREFIX = b"NATS/1.0 "
_log = logging.getLogger("catga.nats")


class ClearTextError(Error):
    """TLS was asked for and the server speaks in clear."""


def _says_nothing(headers: bytes) -> bool:
    """Say whether it is the id alone, as every stored message brings it back: reading it took a
    sixth of the time of consuming."""
    return headers.startswith(_OWN_HEADER) and headers.count(b"\r\n") == 3


def frame(subject: str, payload: bytes, reply: str = "", headers: bytes = b"") -> bytes:
    """Return the command that publishes one message."""
    if not headers:
        return plain_frame(subject.encode("utf-8", "surrogateescape"), payload, reply)
    where, head = f"{subject} {reply}" if reply else subject, len(headers)
    line = f"HPUB {where} {head} {head + len(payload)}\r\n".encode("utf-8", "surrogateescape")
    return b"%b%b%b\r\n" % (line, headers, payload)


def plain_frame(subject: bytes, payload: bytes, reply: str = "") -> bytes:
    """Return it without headers, to a subject as it came, like that of an acknowledgement."""
    if reply:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply.encode(), len(payload), payload)
    return b"PUB %b %d\r\n%b\r\n" % (subject, len(payload), payload)


@contextlib.contextmanager
def _as_one_of_its_own(words: str) -> Iterator[None]:
    """Let a try to connect fail so that there is a next one: the client's reconnecting ends for
    good with any other error."""
    try:
        yield
    except (Error, OSError, TimeoutError):
        raise
    except Exception as error:
        # Only its kind: a key that was read may stand in it.
        raise Error(f"{words}: {type(error).__name__}") from None


class _Socket(TcpTransport):
    """A socket that takes what is written to it after it was lost, and says so in `drain`.

    From CPython 3.12 on its `writelines` raises then what only the reader can mend, or watches a
    number that the next socket gets.
    """

    def __bool__(self) -> bool:
        return True  # it is this one, also before it is connected

    def writelines(self, payload: Iterable[bytes]) -> None:
        self.write(b"".join(payload))  # type: ignore[no-untyped-call] # the client's own


class GuardedClient(Client):
    """A connection that never goes deaf, never sends in clear what was meant for TLS, never keeps
    messages for later."""

    def __init__(self, *, require_tls: bool) -> None:
        super().__init__()
        self._transport = _Socket()  # type: ignore[no-untyped-call] # the client's own
        self._require_tls = require_tls
        self._tries: WeakSet[asyncio.Task[Any] | None] = WeakSet()
        """The tasks that connect again, the one of now and those before it."""
        self._ended = False
        self._ps = OnePassParser(self)
        self._sinks: dict[int, OnMessages] = {}
        self._statuses: dict[bytes, dict[str, str] | None] = {}
        self._wrote = False

    @staticmethod
    def own_options() -> dict[str, Any]:
        """Return what every connection is opened with."""
        options: dict[str, Any] = {
            "max_reconnect_attempts": -1,  # the default gives up for good after 60 tries
            "reconnect_time_wait": 0.5,
            "pending_size": 0,  # refuse while disconnected, instead of keeping for later
            "max_outstanding_pings": 2,
        }
        if "skip_subject_validation" in inspect.signature(Client.connect).parameters:
            options["skip_subject_validation"] = True  # every token was validated by `Subject`
        return options

    @property
    def server_version(self) -> str:
        """What the server calls itself; empty when it does not say."""
        return str(self._server_info.get("version", ""))

    @property
    def server_id(self) -> str:
        """The name of the server's process: a restart gives it another. Empty in a cluster, where
        others know what one of them forgets."""
        info = self._server_info
        return "" if info.get("cluster") else str(info.get("server_id", ""))

    async def send(
        self, subject: str, payload: bytes, reply: str = "", headers: dict[str, str] | None = None
    ) -> bool:
        """Hand over one message; False when it surely was not, because there is no connection."""
        if not self.is_connected:
            return False
        try:
            await self.publish(subject, payload, reply, headers)
        except Error:
            return False
        return True

    async def send_all(self, messages: Iterable[Sent], headers: bytes = b"") -> bool:
        """Hand over several at once, each with these headers (as `header_block` writes them).

        False, and none of them was, when there is no connection.
        """
        return await self.write([frame(*message, headers) for message in messages])

    async def write(self, frames: Iterable[bytes]) -> bool:
        """Hand over what `frame` made; False, and nothing was, when there is no connection."""
        if not self.is_connected or self.is_draining_pubs or self._flush_queue is None:
            return False
        data = b"".join(frames)
        if not self.write_now(data):
            await self._send_command(data)
            if self._flush_queue.empty():
                await self._flush_pending()
        return True

    def write_now(self, data: bytes) -> bool:
        """Write what is first in its turn of the loop, or large, and say whether it was; the rest
        of the turn leaves together, by the client's own task, which comes a turn later."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is None or self._pending or writer.transport.get_write_buffer_size():
            return False  # behind what waits
        if len(data) < _LARGE:
            if self._wrote:
                return False
            self._wrote = True
            asyncio.get_running_loop().call_soon(self.end_turn)
        writer.write(data)
        return True

    def end_turn(self) -> None:
        """Let what comes next leave at once again."""
        self._wrote = False

    async def room(self) -> bool:
        """Let others run, and wait while the socket takes nothing; False when it never does."""
        await asyncio.sleep(0)
        queue = self._flush_queue
        if self._pending_data_size > _ROOM_BYTES and self.is_connected and queue is not None:
            flushed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            await queue.put(flushed)
            await asyncio.wait([flushed], timeout=_FLUSH_SECONDS)
            return flushed.done() and self.is_connected
        return self.is_connected

    async def subscribe_all(
        self, subject: str, on_messages: OnMessages, queue: str = ""
    ) -> Subscription:
        """Subscribe without the client's own queue, task and limits: messages go straight to
        `on_messages`, as many as came together, which bounds by itself."""
        self._sinks[self._sid + 1] = on_messages  # the number `subscribe` is about to take
        return await self.subscribe(subject, queue)

    async def unsubscribe_gently(self, subscription: Subscription, timeout: float) -> None:
        """Unsubscribe, once everything that was under way has reached the callback.

        Without a connection, or after `timeout` seconds: at once.
        """
        with contextlib.suppress(Error, OSError, TimeoutError):
            if not self.is_connected:  # its own drain would wait for the next connection
                await subscription.unsubscribe()
                return
            async with asyncio.timeout(timeout):
                await subscription.drain()  # type: ignore[no-untyped-call] # the client's own

    async def answers(self, timeout: float) -> bool:
        """Make a round trip.

        Only this notices a reader that has died: `is_connected` stays true, `flush` succeeds.
        """
        if not self.is_connected:
            return False
        try:
            await self.rtt(timeout)  # type: ignore[arg-type] # any number of seconds will do
        except (Error, OSError, TimeoutError):
            return False
        return True

    async def start_again(self) -> None:
        """Give up this connection and make another."""
        await self._process_op_err(StaleConnectionError())

    async def _attempt_reconnect(self) -> None:
        # Closing waits until the peer has read what was written: for ever, when it hangs. And what
        # was not written yet would be sent after the reconnect, long after we said "lost".
        self.abort()
        self._pending = []
        self._pending_data_size = 0
        self._tries.add(asyncio.current_task())
        await super()._attempt_reconnect()

    async def _connect_to_server(self, s: Any) -> None:
        self.end_if_unwanted()
        # A try that failed after it was connected leaves its socket open, and a reader that would
        # read from the next socket too.
        if self._reading_task is not None:
            self._reading_task.cancel()
        self.abort()
        await super()._connect_to_server(s)
        self.end_if_unwanted()

    def end_if_unwanted(self) -> None:
        """End a try to reconnect that was cancelled, or replaced by a newer one.

        Before Python 3.12 a cancellation that comes together with the connection, or with its
        refusal, is swallowed: it would go on for ever, or with a socket of its own.
        """
        task = asyncio.current_task()
        unwanted = self._ended or self.is_closed or task is not self._reconnection_task
        if task in self._tries and unwanted:
            self.abort()
            raise asyncio.CancelledError

    async def end(self, timeout: float) -> None:
        """Close, within `timeout` seconds for what is still to be sent; nothing stays behind."""
        self._ended = True  # also when `close` is cut short, and a try outlives its cancellation
        # As a task of its own: its `close` can end in a cancellation that nobody asked for, when
        # it waits for a socket together with a try to reconnect that it has cancelled itself.
        closing = asyncio.ensure_future(self.close())
        tasks = [task for task in (closing, self._reconnection_task) if task is not None]
        await asyncio.wait([closing], timeout=timeout)
        await end_all(tasks, timeout)
        if closing.done() and not closing.cancelled():
            closing.exception()  # looked at: there is nothing left to be done about it
        with contextlib.suppress(Exception):
            self.abort()

    def abort(self) -> None:
        """Drop the socket at once."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def _process_connect_init(self) -> None:
        with _as_one_of_its_own("the server greets in another way"):
            await super()._process_connect_init()

    def _connect_command(self) -> bytes:
        # A server that does not offer TLS is otherwise sent the credentials in clear.
        if self._require_tls:
            writer = getattr(self._transport, "_io_writer", None)
            if writer is None or writer.get_extra_info("ssl_object") is None:
                raise ClearTextError("TLS was asked for and the server speaks in clear: refused")
        with _as_one_of_its_own("the credentials cannot be used"):
            return super()._connect_command()

    def _read_creds_user_jwt(self, creds: Any) -> bytearray:
        # Where there is no such line the client's own reads on at the end of the file for ever.
        lines = iter(Path(creds).read_bytes().splitlines())
        for line in lines:
            if b"BEGIN NATS USER JWT" in line:
                return bytearray(next(lines, b""))
        raise Error("the credentials have no JWT")

    async def hand_over(self, sid: int, run: Sequence[Message]) -> None:
        """Give messages to whoever listens.

        The client's queue, task and books for each message take as long as all of the engine.
        """
        sink = self._sinks.get(sid)
        if sink is None:
            for each in run:
                await self._process_msg(sid, each.subject, each.reply, each.data, each.head)
            return
        for each in run:
            if each.head and not _says_nothing(each.head):
                each.headers = await self._process_headers(each.head)
        try:
            sink(run)
        except Exception:  # it would end the reader
            _log.exception("messages on %r could not be taken in", run[0].subject)

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._sinks.pop(sid, None)
        super()._remove_sub(sid, max_msgs)

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        # A status alone ("404 Message Not Found") is read once: of a thousand look-ups almost all
        # are answered by the same one.
        if headers in self._statuses:
            return self._statuses[headers]
        # One malformed header block ends the reader otherwise. The body is still delivered: only
        # who sees a message can park it.
        try:
            read = await super()._process_headers(headers)
        except Exception as error:
            _log.warning("a message with a malformed header block: %r", error)
            return None
        alone = headers.startswith(_STATUS_PREFIX) and headers.count(b"\r\n") == 2
        if alone and len(headers) < _SHORT and len(self._statuses) < _SHORT:
            self._statuses[headers] = read
        return read

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        # A PING is written past the commands that wait: its PONG would prove nothing about them,
        # and a subscription would count as confirmed before the server has heard of it.
        if self._pending and self._transport is not None:
            self._transport.writelines(self._pending)
            self._pending = []
            self._pending_data_size = 0
        await super()._send_ping(future)

    async def _process_pong(self) -> None:
        # A PONG for a round trip that was given up ends the reader otherwise.
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _process_err(self, err_msg: str) -> None:
        # The client's own closes it for good: start again instead, unless that has begun.
        error = Error("nats: " + err_msg.strip("'"))
        await self._error_cb(error)
        if "permissions violation" not in err_msg:
            await self._process_op_err(error)
