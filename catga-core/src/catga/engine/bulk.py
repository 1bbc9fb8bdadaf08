"""Bulk publishing: a bounded window over an iterable of any length."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from itertools import islice
from typing import Any

from catga.engine.extras import NOTHING_EXTRA, Extras
from catga.engine.publishing import Publisher, broken_off, receipt_or_raise
from catga.errors import CatgaError
from catga.ground.tasks import TaskOwner, wait_all
from catga.model.message import Moment
from catga.model.outcome import PublishResult, PublishSummary, Receipt
from catga.spi import Outgoing

__all__ = ["AfterPublish", "Encode", "publish_all"]

_CHUNK = 256
Encode = Callable[[Any, Extras, Moment], Outgoing]
AfterPublish = Callable[[list[tuple[Outgoing, Receipt]]], Awaitable[None]]


class _Chunk:
    """Messages that leave together, each with its place in the whole."""

    __slots__ = ("counted", "outgoing", "places")

    def __init__(self) -> None:
        self.counted = False
        self.places: list[int] = []
        self.outgoing: list[Outgoing] = []


class _Bulk:
    """One bulk publish: chunks leave side by side, results are counted as they come."""

    def __init__(self, publisher: Publisher, after: AfterPublish | None, chunks: int) -> None:
        self._publisher = publisher
        self._after = after
        self._free = asyncio.Semaphore(chunks)
        self._running: set[asyncio.Task[None]] = set()
        self.accepted = 0
        self.duplicates = 0
        self.failures: list[tuple[int, CatgaError]] = []
        self._raised: Exception | None = None
        """What went wrong with a chunk as a whole."""

    async def leave(self, chunk: _Chunk, tasks: TaskOwner) -> None:
        """Let a chunk leave as soon as there is room for it."""
        await self._free.acquire()
        task = tasks.spawn(self._deliver(chunk), "publish a chunk")
        self._running.add(task)
        task.add_done_callback(partial(self._left, chunk))

    async def _deliver(self, chunk: _Chunk) -> None:
        try:
            results = await self._publisher.send(chunk.outgoing)
            self._count(chunk, results)
            if self._after is not None and (stored := _stored(chunk.outgoing, results)):
                await self._after(stored)
        except Exception as error:
            self._raised = self._raised or error

    def _left(self, chunk: _Chunk, task: asyncio.Task[None]) -> None:
        """Make room for another; a chunk whose task was cancelled may not even have begun."""
        self._running.discard(task)
        self._free.release()
        if task.cancelled() and not chunk.counted:
            self._count(chunk, broken_off(chunk.places, asyncio.CancelledError()))

    def _count(self, chunk: _Chunk, results: list[PublishResult]) -> None:
        chunk.counted = True
        for place, result in zip(chunk.places, results, strict=True):
            if type(result) is Receipt:
                self.accepted += 1
                if result.duplicate:
                    self.duplicates += 1
            else:
                self._fail(place, result)

    def _fail(self, place: int, result: PublishResult) -> None:
        try:
            receipt_or_raise(result)
        except CatgaError as error:
            self.failures.append((place, error))

    async def end(self) -> PublishSummary:
        """Wait for what is under way and sum up, or raise what did not go on."""
        await wait_all(self._running, None)
        if self._raised is not None:
            raise self._raised
        self.failures.sort(key=lambda failure: failure[0])
        return PublishSummary(self.accepted, self.duplicates, tuple(self.failures))


def _stored(batch: list[Outgoing], results: list[PublishResult]) -> list[tuple[Outgoing, Receipt]]:
    return [
        (outgoing, result)
        for outgoing, result in zip(batch, results, strict=True)
        if isinstance(result, Receipt) and outgoing.subject.durable
    ]


async def publish_all(
    publisher: Publisher,
    tasks: TaskOwner,
    messages: Iterable[Any],
    writer_of: Callable[[type], Encode | None],
    prepare: Callable[[Any], Awaitable[Outgoing]],
    *,
    after: AfterPublish | None,
    window: int,
) -> PublishSummary:
    """Publish everything, at most `window` messages in flight.

    `writer_of` says how messages of a class are encoded; where it returns None, `prepare` does it.
    `after` gets the receipts of each chunk before its place is free again.
    """
    size = max(1, min(_CHUNK, window // 4))
    bulk = _Bulk(publisher, after, max(1, window // size))
    writers: dict[type, Encode | None] = {}
    rest, begin = iter(messages), 0
    while read := list(islice(rest, size)):
        chunk, moment = _Chunk(), Moment()
        for place, message in enumerate(read, begin):
            write = writers.get(type(message))
            try:
                if write is None:
                    write = writers[type(message)] = writer_of(type(message))
                if write is None:
                    outgoing = await prepare(message)
                else:
                    outgoing = write(message, NOTHING_EXTRA, moment)
            except CatgaError as error:
                bulk.failures.append((place, error))
            else:
                chunk.places.append(place)
                chunk.outgoing.append(outgoing)
        if chunk.places:
            await bulk.leave(chunk, tasks)
        begin += len(read)
    return await bulk.end()
