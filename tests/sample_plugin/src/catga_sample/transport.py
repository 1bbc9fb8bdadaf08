"""The transport interface over the file. What each method promises stands in `catga.spi`."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import TypeAlias, TypeVar

from catga import errors, spi
from catga_sample import queues
from catga_sample.database import Database, InDoubt
from catga_sample.plugin import CAPABILITIES, SampleSettings

E = TypeVar("E")
T = TypeVar("T")
One: TypeAlias = Callable[[Connection, E, float], T]
"""What is done in a transaction with one entry of a batch, at a time."""
Results: TypeAlias = list[spi.SettleResult]
_ALIVE = 30.0  # seconds after which a listener that was not prolonged counts as dead


class SampleTransport(spi.Transport, spi.InboxStore):
    """`sample:///path/to/file.db`, made when it is not there; for any number of processes."""

    now = staticmethod(time.time)
    """The file's time, as any broker's: the host's, not what one member was given as its clock."""

    def __init__(self, address: spi.Address, settings: SampleSettings) -> None:
        if address.hosts or not address.path:
            raise errors.ConfigurationError("name a file in the URL: sample:///path/to/file.db")
        self.settings, self.database = settings, Database(Path("/", address.path))
        self.readers: set[SampleSubscription] = set()
        self.runtime: spi.Runtime
        self._window, self.ttl = 600.0, 86_400.0

    def tell(self, kind: spi.EventKind, words: str) -> None:
        self.runtime.emit(spi.TransportEvent(kind, words))

    @property
    def capabilities(self) -> spi.Capabilities:
        return spi.Capabilities(CAPABILITIES, {spi.Capability.HANDLED: "left out: it is a sample"})

    @property
    def max_payload_bytes(self) -> int:
        return self.settings.max_payload_bytes

    @property
    def inbox(self) -> spi.InboxStore:
        return self

    async def open(self, runtime: spi.Runtime) -> None:
        self.runtime = runtime
        await self.database.open(self.settings.fsync, runtime.connect_deadline)
        runtime.spawn(self._keep_house(), f"keep house in {self.database.path}")

    async def _keep_house(self) -> None:
        while True:
            try:
                ask = (self.runtime.instance, self.now() + _ALIVE, self.now())
                await self.database.write(queues.keep_house, *ask)
            except errors.ConnectionLost as error:
                self.tell(spi.EventKind.TROUBLE, str(error))
            await self.runtime.clock.sleep(_ALIVE / 3)

    async def prepare(self, topology: spi.Topology, mode: spi.Mode) -> None:
        self._window, self.ttl = topology.dedupe_window, topology.completion_ttl
        look = queues.declare_group if mode is spi.Mode.CREATE else queues.find_group
        for source in topology.sources:
            # An ephemeral group comes and goes with its subscription.
            if not source.ephemeral and await self.database.write(look, source) is None:
                words = f"no group {source.group!r} of {source.type}: start once with create=true"
                raise errors.ConfigurationError(words)

    async def publish(self, batch: Sequence[spi.Outgoing]) -> list[spi.PublishResult]:
        missed: list[int] = []

        def one(db: Connection, out: spi.Outgoing, now: float) -> spi.PublishResult:
            if len(out.body) > self.max_payload_bytes:
                return spi.Rejected(errors.PayloadTooLarge(len(out.body), self.max_payload_bytes))
            if out.subject.durable:
                return queues.store(db, out, now, self._window)
            taken, dropped = queues.hand_over(db, out, now, self.settings.live_buffer)
            missed.append(dropped)
            if out.reply_to is not None and not taken:
                return spi.Rejected(errors.NoResponders(f"nobody listens on {out.subject}"))
            return spi.Receipt(out.message_id)

        try:
            results = await self.each(batch, one)
        except InDoubt as error:
            return [spi.Unknown(error)] * len(batch)
        except errors.ConnectionLost as error:
            return [spi.Rejected(error, transient=True)] * len(batch)
        if any(missed):
            self.tell(spi.EventKind.SLOW_CONSUMER, f"{sum(missed)} QoS 0 messages found no room")
        return results

    async def each(self, batch: Sequence[E], one: One[E, T]) -> list[T]:
        """Do the same for each of a batch, now, in one transaction."""
        now = self.now()
        results = await self.database.write(lambda db: [one(db, each, now) for each in batch])
        for reader in self.readers:  # those of other buses look by themselves, soon
            reader.ring()
        return results

    async def subscribe(self, source: spi.Source) -> spi.Subscription:
        if source.durable and not source.ephemeral:
            queue = await self.database.write(queues.declare_group, source)
        else:
            ask = (source, self.runtime.instance, self.now() + _ALIVE)
            queue = await self.database.write(queues.add_queue, *ask)
        reader = SampleSubscription(self, source, queue)
        self.readers.add(reader)
        return reader

    async def completed(self, keys: Sequence[spi.Completion]) -> list[bool]:
        return [row is not None for row in await self.each(keys, queues.find)]

    async def responses(self, keys: Sequence[spi.Completion]) -> list[bytes | None]:
        return [row and row[0] for row in await self.each(keys, queues.find)]

    async def record(self, records: Sequence[spi.Record]) -> Results:
        return await self.settle(records, lambda db, e, now: queues.record(db, e, now, self.ttl))

    async def settle(self, batch: Sequence[E], one: One[E, spi.SettleResult]) -> Results:
        """As `each`; when the file does not answer, nobody knows."""
        try:
            return await self.each(batch, one)
        except errors.ConnectionLost as error:
            return [spi.Unknown(error)] * len(batch)

    async def remove(self, namespace: str) -> None:
        await self.database.write(queues.remove, namespace)

    async def health(self) -> spi.Health:
        try:
            await self.database.write(lambda _: self.database.path.stat())
        except (errors.ConnectionLost, OSError) as error:
            return spi.Health(ok=False, detail=str(error))
        return spi.Health(ok=True)

    async def close(self) -> None:
        for reader in tuple(self.readers):
            await reader.close()
        await self.database.close()


class SampleSubscription(spi.Subscription):
    """Reads one queue: a group's, or a listener's, whose messages are forgotten when taken."""

    def __init__(self, transport: SampleTransport, source: spi.Source, queue: int) -> None:
        self._transport, self._source, self._queue = transport, source, queue
        self._owner = secrets.token_hex(8)
        self._bell: spi.Mailbox[None] = spi.Mailbox(transport.runtime.clock)
        self._closed = False

    def ring(self) -> None:
        """Look again, now."""
        if not len(self._bell):
            self._bell.put(None)

    @property
    def lease(self) -> float:
        return self._source.lease if self._source.durable else math.inf

    async def receive(self, limit: int, max_wait: float) -> list[spi.Delivery]:
        clock = self._transport.runtime.clock
        interval = self._transport.settings.poll_interval.total_seconds()
        until = clock.monotonic() + max_wait
        while True:
            found = await self._take(limit)
            left = until - clock.monotonic()
            if found or self._bell.closed or left <= 0:
                return found
            await self._bell.receive(1, min(left, interval))  # at once if it rang meanwhile

    async def _take(self, limit: int) -> list[spi.Delivery]:
        file, source = self._transport.database, self._source
        if self._closed or (self._bell.closed and source.durable):
            await asyncio.sleep(0)  # who asks again and again must not stop the loop
            return []
        # Both clocks are read before the file is asked: a lease may seem too short, never too long.
        until, now = self._transport.runtime.clock.monotonic() + self.lease, self._transport.now()
        due = await file.read(queues.is_due, self._queue, now)
        if due is None:  # removed, or given up while this process stood still
            raise errors.SubscriptionClosed(f"{file.path} has no queue of {source.type} for us")
        ask = (self._queue, self._owner, source, limit, now)
        found = []
        for key, attempt, text, body, replays in await file.write(queues.take, *ask) if due else ():
            name, subject = str(key) if source.durable else "", spi.parse_subject(text)
            token = (self._queue, key, self._owner, attempt)
            found.append(spi.Delivery(subject, body, attempt, name, until, token, replays=replays))
        return found

    async def settle(self, batch: Sequence[spi.Settle]) -> Results:
        def one(db: Connection, each: spi.Settle, now: float) -> spi.SettleResult:
            due = now + each.outcome.delay if isinstance(each.outcome, spi.Nack) else None
            return queues.settle(db, each.delivery.token, now, due)

        return await self._change(batch, one)

    async def extend(self, batch: Sequence[spi.Delivery]) -> Results:
        def one(db: Connection, each: spi.Delivery, now: float) -> spi.SettleResult:
            return queues.settle(db, each.token, now, now + self.lease, self._owner)

        until = self._transport.runtime.clock.monotonic() + self.lease
        results = await self._change(batch, one)
        for delivery, result in zip(batch, results, strict=True):
            if isinstance(result, spi.Done):
                delivery.lease_until = until
        return results

    async def commit(self, batch: Sequence[spi.Commit]) -> Results:
        def one(db: Connection, each: spi.Commit, now: float) -> spi.SettleResult:
            return queues.complete(db, each, now, self._transport.ttl)

        return await self._change(batch, one)

    async def _change(self, batch: Sequence[E], one: One[E, spi.SettleResult]) -> Results:
        if not self._source.durable:
            return [spi.Done()] * len(batch)
        return await self._transport.settle(batch, one)

    async def drain(self) -> None:
        if not self._bell.closed and (self._source.ephemeral or not self._source.durable):
            with contextlib.suppress(errors.ConnectionLost):  # then it ends a little later
                await self._transport.database.write(queues.let_go, self._queue)
        self._bell.close()

    async def close(self) -> None:
        self._closed = True
        self._transport.readers.discard(self)
        await self.drain()
