"""One blocking connection per group: reads for all its subscriptions that have room."""

from __future__ import annotations

import asyncio
import random

from catga.errors import AuthenticationError, CatgaError
from catga.spi import EventKind, end_all
from catga_redis.errors import ELSEWHERE, REPLY_ERRORS
from catga_redis.groups import create_groups
from catga_redis.reading import Ask, SharedLine, asks
from catga_redis.session import Session
from catga_redis.streams import LogSubscription
from catga_redis.trimming import Trimmer
from catga_redis.wire import Line, pack_command

__all__ = ["GroupReader"]

_BLOCK_WITHOUT_UNBLOCK = 0.1
_PAUSE = 0.5
_SHORT_PAUSE = 0.01
_PAUSE_ELSEWHERE = 0.05


class GroupReader:
    """Reads new entries and reclaims old ones for the durable subscriptions of one group."""

    def __init__(self, session: Session, group: str, key: bytes) -> None:
        self._session = session
        self._line = session.line(key)
        self._clock = session.runtime.clock
        self._group = group.encode()
        self._wire = session.wire(f"group {group}", key, greet=self._learn_id)
        self._client_id: int | None = None
        self._subscriptions: list[LogSubscription] = []
        self._wake = asyncio.Event()
        self._reclaim_wake = asyncio.Event()
        self._between_reads = asyncio.Event()
        # Held while a reply may be on its way that `recover` would take for lost.
        self._taking = asyncio.Lock()
        self._reading: frozenset[LogSubscription] | None = None
        self._waits = False
        self._recovering = False
        self._unblocking = False
        self.line: Line = SharedLine(self._wire, self._line, self._is_free)
        """What carries the settlements of those it reads for."""
        self._trimmer = Trimmer(session)
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Connect and start to read."""
        await self._wire.open()
        spawn = self._session.runtime.spawn
        name = self._group.decode()
        self._tasks = [
            spawn(self._read_forever(), f"redis group {name}: read"),
            spawn(self._reclaim_forever(), f"redis group {name}: reclaim"),
        ]

    def join(self, subscription: LogSubscription) -> None:
        """Read for this subscription too."""
        self._subscriptions.append(subscription)
        self.poke(subscription)
        self.poke_reclaim()

    async def leave(self, subscription: LogSubscription) -> None:
        """Return once nothing more can come for this subscription."""
        if subscription not in self._subscriptions:
            return
        self._subscriptions.remove(subscription)
        while self._reading is not None and subscription in self._reading:
            self._between_reads.clear()
            self._unblock()
            await self._between_reads.wait()
        await self._wire.answered(but=self._waits)  # what comes after goes another way
        async with self._taking:  # a reclaim in flight ends first
            return

    async def close(self) -> None:
        """Stop reading. Idempotent; every subscription has left before."""
        await end_all(self._tasks)
        await self._wire.close()

    def poke(self, subscription: LogSubscription) -> None:
        """Look again whether this one has room; asked at each receipt, so of one and not of all."""
        self._wake.set()
        reading = self._reading
        if reading is not None and subscription.hungry and subscription not in reading:
            self._unblock()

    def poke_reclaim(self) -> None:
        """Look again what is due."""
        self._reclaim_wake.set()

    def jitter(self) -> float:
        """A factor around one, so that members do not look all at once."""
        return 0.75 + random.random() / 2  # noqa: S311 - spreads load, no secret

    def _is_free(self) -> bool:
        """Whether what is sent now is carried out now, and before all that asks for it later.

        On a cluster it goes the way on which a slot that moved is followed.
        """
        return not (self._waits or self._recovering or self._session.servers.sharded)

    async def _learn_id(self) -> None:
        try:
            self._client_id = await self._wire.call(b"CLIENT", b"ID")
        except REPLY_ERRORS:
            self._client_id = None  # not permitted: reads are short instead

    # -- new entries -----------------------------------------------------------------------------

    async def _read_forever(self) -> None:
        while True:
            hungry: tuple[LogSubscription, ...] = ()
            try:
                await self._wire.up.wait()
                if any(each.unseen for each in self._subscriptions):
                    await self._recover()
                # Decided last: who leaves meanwhile must not be read for.
                hungry = tuple(each for each in self._subscriptions if each.hungry)
                if hungry:
                    await self._read_once(hungry)
                else:
                    self._wake.clear()
                    await self._wake.wait()
            except CatgaError:
                for each in self._subscriptions:
                    each.unseen = True
                await self._clock.sleep(_SHORT_PAUSE)
            except ELSEWHERE:
                await self._clock.sleep(_PAUSE_ELSEWHERE)  # its slot is moving, or has moved
            except REPLY_ERRORS as error:
                await self._repair(hungry, error)

    async def _read_once(self, hungry: tuple[LogSubscription, ...]) -> None:
        commands = asks(hungry, self._session.settings.read_count)
        # Where more waits there is nothing to wait for, and a settlement may come behind the read.
        waits = not any(each.busy for each in hungry)
        block = self._block() if waits else 0.0
        packed = b"".join(self._pack(ask, block) for ask in commands)
        patience = block + self._session.settings.reply_timeout.total_seconds()
        self._reading, self._waits = frozenset(hungry), waits
        try:
            request = self._wire.request(packed, len(commands), patience)
            if not waits:
                self._wire.cork()
            replies = await request
            for ask, reply in zip(commands, replies, strict=True):
                brought = {} if isinstance(reply, Exception) else dict(reply or ())
                for subscription, stream in ask.streams:
                    subscription.take_new(stream, brought.get(stream.key, ()), ask.count)
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        finally:
            self._reading, self._waits = None, False
            self._wire.uncork()
            self._between_reads.set()
        if not any(each.busy for each in hungry):
            await asyncio.sleep(0)  # handlers first: to ask for more is a system call

    def _block(self) -> float:
        block = self._session.settings.block_time.total_seconds()
        return block if self._client_id is not None else min(block, _BLOCK_WITHOUT_UNBLOCK)

    def _pack(self, ask: Ask, block: float) -> bytes:
        """Write one `XREADGROUP`, which waits for so many seconds or not at all."""
        wait = (b"BLOCK", max(1, int(block * 1000))) if block else ()
        keys = [stream.key for _, stream in ask.streams]
        names = (b"XREADGROUP", b"GROUP", self._group, self._session.member)
        return pack_command(
            (*names, b"COUNT", ask.count, *wait, b"STREAMS", *keys, *([b">"] * len(keys)))
        )

    def _unblock(self) -> None:
        if self._waits and not self._unblocking and self._client_id is not None:
            self._unblocking = True
            self._session.runtime.spawn(self._unblock_now(), "redis: unblock a read")

    async def _unblock_now(self) -> None:
        """End the read that waits at the server; it may not have arrived there yet."""
        reading = self._reading
        try:
            while reading is not None and self._reading is reading and self._client_id is not None:
                line = self._session.servers.beside(self._wire)
                if await line.call(b"CLIENT", b"UNBLOCK", self._client_id):
                    return
                await self._clock.sleep(0.002)
        except REPLY_ERRORS:
            self._client_id = None  # not permitted: reads are short from now on
        except CatgaError:
            pass  # not connected: the read ends with its own connection, or in its own time
        finally:
            self._unblocking = False

    async def _recover(self) -> None:
        # What is settled here must not be taken for lost there.
        self._recovering = True
        try:
            async with self._taking:
                await self._wire.answered()
                for each in list(self._subscriptions):
                    if each.unseen:
                        await each.recover()
        finally:
            self._recovering = False

    async def _repair(self, hungry: tuple[LogSubscription, ...], error: Exception) -> None:
        """Make again what somebody removed; close what can never be read, so that the rest can."""
        repaired = False
        for each in hungry:
            # A group begins at 0, for how far it had come is not known any more.
            start = b"$" if each.source.ephemeral else b"0"
            try:
                made = await create_groups(
                    self._session, each.streams, start, ephemeral=each.source.ephemeral
                )
            except CatgaError as failure:
                hopeless = isinstance(failure, AuthenticationError) or "WRONGTYPE" in str(failure)
                if hopeless and each in self._subscriptions:
                    self._subscriptions.remove(each)
                    each.fail(str(failure))
                    repaired = True
                continue
            if made:
                repaired = True
                names = ", ".join(stream.key.decode() for stream in made)
                self._session.emit(
                    EventKind.TROUBLE,
                    f"the group {self._group.decode()} of {names} was gone and was made again",
                )
        if not repaired:
            self._session.emit(EventKind.TROUBLE, f"reading failed: {error}")
            await self._clock.sleep(_PAUSE)

    # -- old entries -----------------------------------------------------------------------------

    async def _reclaim_forever(self) -> None:
        while True:
            self._reclaim_wake.clear()
            now = self._clock.monotonic()
            due = [each for each in self._subscriptions if each.next_reclaim <= now]
            reclaims = bool(due) and self._line.connected
            if reclaims:
                async with self._taking:
                    await asyncio.gather(*(each.reclaim() for each in due))
                if any(each.unseen for each in due):
                    self._unblock()
            # Both in one turn: a reclaim may take longer than what lies between two of them.
            trims = bool(self._subscriptions) and self._trimmer.next <= now
            if trims:
                streams = [stream for each in self._subscriptions for stream in each.streams]
                await self._trimmer.trim(streams, self.jitter())
            if reclaims or trims:
                continue
            times = [each.next_reclaim - now for each in self._subscriptions]
            times += [self._trimmer.next - now] if times else []
            wait = max(min(times, default=_PAUSE), 0.0 if not due else _PAUSE)
            timer = self._clock.call_later(wait, self._reclaim_wake.set)
            try:
                await self._reclaim_wake.wait()
            finally:
                timer.cancel()
