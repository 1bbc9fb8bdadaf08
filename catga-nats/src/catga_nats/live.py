"""QoS 0, and the responses to this bus: core subscriptions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from nats.aio.msg import Msg
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
from catga_nats.client import OnMessage
from catga_nats.connection import Connection

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
            await self._listen(pattern, self._on_reply)
            return
        await self._listen_to(Subject(source.namespace, Kind.LIVE, source.type))
        if source.group:
            await self._listen_to(
                Subject(source.namespace, Kind.LIVE_TO, source.type, source.group)
            )

    async def _listen_to(self, subject: Subject) -> None:
        await self._listen(subject.text, partial(self._on_message, subject))

    async def _listen(self, pattern: str, on_message: OnMessage) -> None:
        client = self._connection.client
        group = "" if self._source.reply else self._source.group
        self._open.append(await client.subscribe_all(pattern, on_message, group))
        await self._connection.confirm(pattern)

    def _on_message(self, subject: Subject, message: Msg) -> None:
        self._put(Delivery(subject, message.data, 1, "", _FOREVER, None, message.headers))

    def _on_reply(self, message: Msg) -> None:
        try:
            subject = parse_subject(message.subject)
        except ConfigurationError:
            self._connection.emit(EventKind.TROUBLE, "a response on a malformed subject: ignored")
            return
        headers = message.headers
        nobody = not message.data and (headers or {}).get("Status") == "503"
        self._put(
            Delivery(subject, message.data, 1, "", math.inf, None, headers, no_responders=nobody)
        )

    def _put(self, delivery: Delivery) -> None:
        if len(self._mailbox) < self._limit:
            self._mailbox.put(delivery)
            self._dropping = False
            return
        self.dropped += 1
        if not self._dropping:  # once per congestion, not per message
            self._dropping = True
            words = f"{delivery.subject}: {self._limit} messages wait, new ones are dropped"
            self._connection.emit(EventKind.SLOW_CONSUMER, words)

    @property
    def lease(self) -> float:
        """There is nothing to keep."""
        return math.inf

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
