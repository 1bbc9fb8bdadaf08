"""What is stored in one place and belongs in another: a durable consumer carries it there.

Delayed messages where the server has no schedules, and what transactions publish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

import attrs

from catga.spi import (
    Ack,
    Clock,
    Delivery,
    Nack,
    Outgoing,
    Receipt,
    Reject,
    Settle,
)
from catga_nats import names
from catga_nats.api import JetStreamApi
from catga_nats.outbox import committed_copy
from catga_nats.publishing import Publisher
from catga_nats.pull import PullSubscription
from catga_nats.schedules import due_copy

__all__ = ["Mover", "Way", "committed", "delayed"]

_BATCH = 128
_WAIT = 5.0
_PAUSE = 1.0


@attrs.frozen
class Way:
    """Where something lies, and how to read where it belongs."""

    stream: str
    consumer: str
    what: str
    """In words."""
    read: Callable[[bytes, Mapping[str, str]], tuple[Outgoing, datetime | None]]
    """Returns what is to be published and when, None for now. Raises `ConfigurationError`."""


def delayed(namespace: str) -> Way:
    """Where delayed messages lie that no schedule of the server carries."""
    stream = names.log_stream(namespace)
    return Way(stream, names.waiting_consumer(), "delayed messages", due_copy)


def committed(namespace: str) -> Way:
    """Where the messages of transactions lie."""
    stream = names.tx_stream(namespace)
    return Way(stream, names.out_consumer(), "messages of transactions", committed_copy)


class Mover:
    """Carries what is due to its target; what is not goes back with the time that is left.

    A crash between the copy and the removal brings it again, and the id of the copy swallows the
    second one.
    """

    def __init__(self, publisher: Publisher, api: JetStreamApi, clock: Clock, way: Way) -> None:
        self._publisher = publisher
        self._api = api
        self._clock = clock
        self._way = way
        self._delete = f"STREAM.MSG.DELETE.{way.stream}"

    async def run(self, subscription: PullSubscription) -> None:
        """Move until it is drained, or raises `SubscriptionClosed`: its consumer is gone."""
        while not subscription.drained:
            batch = await subscription.receive(_BATCH, _WAIT)
            if not batch:
                continue
            entries = await self._carry(batch)
            # First: the server does not deliver again what is gone, but would keep what is settled.
            await self._remove(each.delivery for each in entries if isinstance(each.outcome, Ack))
            await subscription.settle(entries)

    async def _carry(self, batch: Sequence[Delivery]) -> list[Settle]:
        now = self._clock.now()
        entries: list[Settle] = []
        due: list[tuple[Delivery, Outgoing]] = []
        for delivery in batch:
            try:
                copy, when = self._way.read(delivery.body, delivery.headers or {})
            except Exception as error:  # from outside: it must not stop the others
                words = f"none of ours among the {self._way.what}: {error}"
                entries.append(Settle(delivery, Reject(words)))
                continue
            if when is not None and when > now:
                entries.append(Settle(delivery, Nack((when - now).total_seconds())))
            else:
                due.append((delivery, copy))
        results = await self._publisher.publish([copy for _, copy in due]) if due else []
        for (delivery, _), result in zip(due, results, strict=True):
            entries.append(Settle(delivery, Ack() if isinstance(result, Receipt) else Nack(_PAUSE)))
        return entries

    async def _remove(self, moved: Iterable[Delivery]) -> None:
        """Give their room back; the id of the copy still swallows a repeat."""
        calls = [(self._delete, {"seq": int(each.sequence), "no_erase": True}) for each in moved]
        if calls:
            await self._api.try_once(calls)
