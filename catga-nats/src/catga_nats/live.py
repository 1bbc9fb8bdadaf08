"""QoS 0, and the responses to this bus: core subscriptions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from nats.aio.subscription import Subscription as CoreSubscription

from catga.errors import ConfigurationError
from catga.spi import (
    Delivery,
    Done,
    EventKind,
    Kind,
    Mailbox,
    Runtime,
    Settle,
    SettleResult,
    Source,
    Subject,
    Subscription,
    parse_subject,
)
from catga_nats.client import OnMessages
from catga_nats.connection import Connection
from catga_nats.parser import Message

__all__ = ["LiveSubscription"]

_DRAIN_SECONDS = 5.0
_FOREVER = math.inf


class LiveSubscription(Subscription):
    """What comes in goes into a bounded mailbox; beyond the bound it is dropped and reported."""

    def __init__(
        self, connection: Connection, runtime: Runtime, source: Source, limit: int
    ) -> None:
        self._connection = connection
        self._source = source
        self._limit = limit
        self._mailbox: Mailbox[Delivery] = Mailbox(runtime.clock)
        self._open: list[CoreSubscription] = []
        self._dropping = False
        self._drained = False
        self.dropped = 0

    async def start(self) -> None:
        """Subscribe; returns once the server has confirmed it."""
        source = self._source
        if source.reply:
            pattern = f"{source.namespace}.reply.{source.group}.*"
            await self._listen(pattern, self._on_replies)
            return
        await self._listen_to(Subject(source.namespace, Kind.LIVE, source.type))
        if source.group:
            await self._listen_to(
                Subject(source.namespace, Kind.LIVE_TO, source.type, source.group)
            )

    async def _listen_to(self, subject: Subject) -> None:
        await self._listen(subject.text, partial(self._on_messages, subject))

    async def _listen(self, pattern: str, on_messages: OnMessages) -> None:
        client = self._connection.client
        group = "" if self._source.reply else self._source.group
        self._open.append(await client.subscribe_all(pattern, on_messages, group))
        await self._connection.confirm(pattern)

    def _on_messages(self, subject: Subject, run: Sequence[Message]) -> None:
        self._put(
            [Delivery(subject, each.data, 1, "", _FOREVER, None, each.headers) for each in run]
        )

    def _on_replies(self, run: Sequence[Message]) -> None:
        deliveries = []
        for each in run:
            try:
                subject = parse_subject(each.subject.decode())
            except (ConfigurationError, UnicodeDecodeError):
                words = "a response on a malformed subject: ignored"
                self._connection.emit(EventKind.TROUBLE, words)
                continue
            nobody = not each.data and (each.headers or {}).get("Status") == "503"
            deliveries.append(
                Delivery(
                    subject, each.data, 1, "", _FOREVER, None, each.headers, no_responders=nobody
                )
            )
        self._put(deliveries)

    def _put(self, deliveries: Sequence[Delivery]) -> None:
        room = self._limit - len(self._mailbox)
        if deliveries and room > 0:
            self._mailbox.extend(deliveries[:room])
            self._dropping = False
        over = deliveries[max(room, 0) :]
        self.dropped += len(over)
        if over and not self._dropping:  # once per congestion, not per message
            self._dropping = True
            words = f"{over[0].subject}: {self._limit} messages wait, new ones are dropped"
            self._connection.emit(EventKind.SLOW_CONSUMER, words)

    @property
    def lease(self) -> float:
        """There is nothing to keep."""
        return _FOREVER

    async def receive(self, limit: int, max_wait: float) -> list[Delivery]:
        """Return what came in."""
        return await self._mailbox.receive(limit, max_wait)

    async def settle(self, batch: Sequence[Settle]) -> list[SettleResult]:
        """Nothing to settle."""
        return [Done()] * len(batch)

    async def extend(self, batch: Sequence[Delivery]) -> list[SettleResult]:
        """Nothing to extend."""
        return [Done()] * len(batch)

    async def drain(self) -> None:
        """Unsubscribe; what the server had sent by then is still returned by `receive`."""
        if not self._drained:
            self._drained = True
            for core in self._open:
                await self._connection.client.unsubscribe_gently(core, _DRAIN_SECONDS)
        self._mailbox.close()

    async def close(self) -> None:
        """Unsubscribe and let go of what was not read."""
        await self.drain()
        self._mailbox.clear()
