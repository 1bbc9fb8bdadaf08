"""Groups at QoS 0: Pub/Sub has none, so the members ask the server who takes what."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from itertools import islice
from typing import Protocol

from catga.errors import CatgaError
from catga.spi import EventKind, Subject
from catga_redis.errors import REPLY_ERRORS
from catga_redis.names import claim_prefix
from catga_redis.scripts import BATCH, CLAIM_LIVE
from catga_redis.session import Session

__all__ = ["Claims", "Freshness"]


class Freshness(Protocol):
    """Who knows how old a message can be."""

    fresh_since: float
    """Whatever arrives now was published after this moment of the monotonic clock."""


class Claims:
    """Decides, together with the other members, which messages are this member's."""

    def __init__(
        self,
        session: Session,
        group: str,
        hub: Freshness,
        keep: Callable[[Subject, bytes], None],
    ) -> None:
        self._session = session
        self._group = group
        self._hub = hub
        self._keep = keep
        self._prefixes: dict[Subject, bytes] = {}
        self._waiting: deque[tuple[Subject, bytes, float]] = deque()
        self._running: asyncio.Task[None] | None = None
        self._ttl = session.settings.claim_time.total_seconds()

    def __len__(self) -> int:
        """How many wait for the server to decide."""
        return len(self._waiting)

    def add(self, subject: Subject, body: bytes) -> None:
        """Claim this one with the others of this loop turn."""
        self._waiting.append((subject, body, self._hub.fresh_since))
        if self._running is None:
            self._running = self._session.runtime.spawn(self._run(), "redis: claim QoS 0")

    async def finish(self) -> None:
        """Return once everything that was added is decided."""
        if self._running is not None:
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = list(islice(self._waiting, BATCH))
                await self._claim(batch)
                for _ in batch:
                    self._waiting.popleft()
        finally:
            self._running = None

    async def _claim(self, batch: list[tuple[Subject, bytes, float]]) -> None:
        clock = self._session.runtime.clock
        # A claim may have run out that another member made on a message this old; taking it could
        # be the second time, so it is dropped. The last third of the time is for the script.
        if clock.monotonic() - batch[0][2] > self._ttl * 2 / 3:
            self._lost(len(batch), EventKind.SLOW_CONSUMER, "this member lags behind")
            return
        sent = clock.monotonic()
        keys = [
            self._prefix(subject) + blake2b(body, digest_size=12).hexdigest().encode()
            for subject, body, _ in batch
        ]
        values = [self._session.member, int(self._ttl * 1000)]
        try:
            taken = await CLAIM_LIVE.run(self._session.line(keys[0]), keys, values)
        except (CatgaError, *REPLY_ERRORS) as error:
            self._lost(len(batch), EventKind.GAP, str(self._session.failure(error)))
            return
        if clock.monotonic() - sent > self._ttl / 3:
            self._lost(len(batch), EventKind.SLOW_CONSUMER, "the server answered too late")
            return
        for (subject, body, _), mine in zip(batch, taken, strict=True):
            if mine:
                self._keep(subject, body)

    def _prefix(self, subject: Subject) -> bytes:
        prefix = self._prefixes.get(subject)
        if prefix is None:
            prefix = self._prefixes[subject] = claim_prefix(subject, self._group)
        return prefix

    def _lost(self, count: int, kind: EventKind, reason: str) -> None:
        self._session.emit(
            kind, f"up to {count} QoS 0 messages were not taken for {self._group}: {reason}"
        )
