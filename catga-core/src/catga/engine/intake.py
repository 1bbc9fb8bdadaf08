"""The intake: what a handler's subscriptions deliver, read and sorted before it is run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

from catga.codecs import EventReader
from catga.engine.handling import Handler
from catga.engine.outcomes import Outcomes
from catga.engine.services import Services
from catga.engine.wording import tell_of
from catga.engine.work import Feed, State, Work
from catga.errors import (
    CapabilityError,
    ConfigurationError,
    SubscriptionClosed,
    UnknownTypeError,
)
from catga.model.qos import QualityOfService
from catga.spi import Ack, Delivery, EventKind, Nack, TransportEvent

__all__ = ["Intake"]

_AT_MOST, _EXACTLY = QualityOfService.AT_MOST_ONCE, QualityOfService.EXACTLY_ONCE
_ACK = Ack()
_POLL = 5.0
_PAUSE = 0.5


class Intake:
    """Reads the subscriptions of one handler, and queues what it has to handle."""

    def __init__(
        self,
        handler: Handler,
        services: Services,
        outcomes: Outcomes,
        name: str,
        queue: Callable[[Iterable[Work]], None],
    ) -> None:
        self.read = EventReader(handler.wire).read
        self._type = handler.wire.name
        self._least = max(handler.qos, QualityOfService.AT_LEAST_ONCE)
        self._exact = False
        """Whether what QoS 2 takes is there."""
        self._s = services
        self._outcomes = outcomes
        self._name = name
        self._queue = queue

    async def run(self, feed: Feed) -> None:
        """Read the feed until it is drained."""
        while True:
            room = await feed.room()
            if feed.draining and feed.settler is not None:
                return
            try:
                deliveries = await feed.subscription.receive(room, 0 if feed.draining else _POLL)
            except SubscriptionClosed as error:
                if not feed.draining:
                    await self._reopen(feed, error)
                    continue
                return
            except Exception as error:
                what = f"{self._name}: receiving failed, and is tried again"
                self._trouble(f"receiving failed: {tell_of(error, what)}")
                await self._s.clock.sleep(_PAUSE)
                continue
            if deliveries:
                await self._admit(feed, deliveries)
            elif feed.draining:
                return
            else:
                # A subscription closed under us answers at once: others must run all the same.
                await asyncio.sleep(0)

    async def _reopen(self, feed: Feed, reason: Exception) -> None:
        """Open another subscription, however long that takes: one that was closed says nothing."""
        self._trouble(f"the subscription ended ({reason}); opening it again")
        closed, told = False, ""
        while not feed.draining:
            await self._s.clock.sleep(_PAUSE)
            try:
                if not closed:
                    await feed.subscription.close()
                    closed = True
                feed.subscription = await self._s.resubscribe(feed.source)
            except Exception as error:
                before = told
                told = tell_of(error, f"{self._name}: opening a subscription again failed")
                if told != before:
                    self._trouble(f"it could not be opened: {told}")
            else:
                return

    def _trouble(self, detail: str) -> None:
        self._s.emit(TransportEvent(EventKind.TROUBLE, f"{self._name}: {detail}"))

    async def _admit(self, feed: Feed, deliveries: Sequence[Delivery]) -> None:
        """Read the envelopes, sort out poison and what was completed before, queue the rest."""
        ready: list[Work] = []
        once: list[Work] = []
        now = self._s.clock.monotonic()
        self._outcomes.received(len(deliveries))
        read, stored, least = self.read, feed.settler is not None, self._least
        recorded = self._outcomes.once is not None
        for delivery in deliveries:
            try:
                envelope, message = read(delivery.body, delivery.headers)
                if envelope.type != self._type:
                    self._refuse(envelope.type)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                self._outcomes.poison(self._unreadable(feed, delivery, now), error)
                continue
            qos = (least if envelope.qos < least else envelope.qos) if stored else _AT_MOST  # noqa: FURB136 - a call costs more
            exactly = qos is _EXACTLY
            work = Work(delivery, _ACK, exactly, feed, envelope, message, qos, now, exactly)
            (once if exactly and recorded else ready).append(work)
        feed.works.update(ready, once)
        if once and not self._exact:
            once = await self._be_exact(feed, once)
        if once and self._outcomes.once is not None:
            ready += await self._outcomes.admitted(await self._outcomes.once.admit(once))
        self._queue(ready)

    async def _be_exact(self, feed: Feed, works: Sequence[Work]) -> list[Work]:
        """The first messages at QoS 2 came: make sure that what was promised of them is kept;
        return those that are to be admitted."""
        try:
            await self._s.be_exact(feed.source)
        except (CapabilityError, ConfigurationError) as error:
            self._trouble(f"exactly once cannot be kept here: {error}")
            for work in _queued(works):
                self._outcomes.park(work, "exactly once cannot be kept here", error)
        except Exception as error:
            tell_of(error, f"{self._name}: preparing exactly once failed")
            self._trouble(f"exactly once cannot be kept now: {error!r}")
            for work in _queued(works):
                self._outcomes.decide(work, Nack(_PAUSE))
        else:
            self._exact = True
            return _queued(works)
        return []

    def _refuse(self, type_: str) -> NoReturn:
        raise UnknownTypeError(f"a {type_!r} came on the subject of {self._type!r}")

    @staticmethod
    def _unreadable(feed: Feed, delivery: Delivery, now: float) -> Work:
        work = Work(delivery, _ACK, feed=feed, since=now)
        feed.works.add(work)
        return work


def _queued(works: Sequence[Work]) -> list[Work]:
    """Leave out what was given back or lost meanwhile."""
    return [work for work in works if work.state is State.QUEUED]
