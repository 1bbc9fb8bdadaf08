"""Consuming: one handler, fed by its subscriptions, run by a bounded number of workers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any

from catga.codecs import read_envelope
from catga.engine.context import Context
from catga.engine.handling import Handler, Invoke
from catga.engine.once import Once
from catga.engine.outcomes import Outcomes
from catga.engine.pool import Pool
from catga.engine.running import remember, run_handler
from catga.engine.services import Services
from catga.engine.settling import Settler
from catga.engine.transaction import Atomic
from catga.engine.work import Feed, State, Stop, Work
from catga.errors import (
    CatgaError,
    CodecError,
    SubscriptionClosed,
    TransportError,
    UnknownTypeError,
)
from catga.ground.deadline import Deadline
from catga.model.outcome import Drained
from catga.model.qos import QualityOfService
from catga.spi import (
    Ack,
    Completion,
    Conflict,
    Delivery,
    EventKind,
    Lost,
    Nack,
    Refused,
    Source,
    TransportEvent,
)

__all__ = ["Consumer"]

_AT_MOST, _EXACTLY = QualityOfService.AT_MOST_ONCE, QualityOfService.EXACTLY_ONCE
_NEVER = float("inf")
_POLL = 5.0
_PAUSE = 0.5
_STALE = 0.25
"""The share of its lease for which it is believed that nobody else has completed a delivery."""
_CONFLICTS = 100
"""So often a handler is run again at once; then its delivery goes back to the broker."""
_LAST_STEPS = 2.0
"""Seconds of a drain, or a third of it, that are kept for giving back what did not finish."""
_CLOSING = 1.0
"""Seconds that subscriptions may take to close when a drain has no time left."""


class Consumer:
    """Runs one handler on what its subscriptions deliver."""

    def __init__(self, handler: Handler, invoke: Invoke, services: Services) -> None:
        self.handler = handler
        self.counts: Counter[str] = Counter()
        self._invoke = invoke
        self._type = handler.wire.name
        self._decode = handler.wire.decode
        self._timeout = _NEVER if handler.timeout is None else handler.timeout
        self._now = services.clock.monotonic
        self._least = max(handler.qos, QualityOfService.AT_LEAST_ONCE)
        self._s = services
        self._feeds: list[Feed] = []
        self._receivers: list[asyncio.Task[None]] = []
        self._settlers: list[asyncio.Task[None]] = []
        self.name = f"{handler.group or 'broadcast'}/{handler.wire.name}"
        self._pool = Pool(handler.concurrency, self._handle, services.tasks, f"worker {self.name}")
        self._atomic: Atomic | None = None
        self._outcomes = Outcomes(handler, services, self.counts, self.name, self._queue)

    async def start(self, sources: Sequence[Source]) -> None:
        """Open the subscriptions; returns once the broker has confirmed them all."""
        for source in sources:
            feed = Feed(await self._s.transport.subscribe(source), source, self._s.window)
            self._feeds.append(feed)
            if source.durable:
                self._make_durable(feed, source)
        for feed in self._feeds:
            work = self._receive(feed)
            self._receivers.append(self._s.tasks.spawn(work, f"receive {self.name}"))

    def _make_durable(self, feed: Feed, source: Source) -> None:
        transport = self._s.transport
        inbox = transport.inbox
        if inbox is not None and not source.ephemeral:
            self._atomic = Atomic(
                transport, source.namespace, source.group, source.type, self._s.encode
            )
            self._outcomes.once = Once(
                inbox,
                self._s.clock,
                key=Completion(source.namespace, source.group, source.type, ""),
                answers=self.handler.is_request,
            )
        feed.settler = Settler(
            feed,
            inbox=inbox,
            capabilities=transport.capabilities,
            publisher=self._s.publisher,
            clock=self._s.clock,
            source=self._s.service,
            on_settled=self._outcomes.off_hands,
            on_uncommitted=self._uncommitted,
        )
        self._settlers.append(self._s.tasks.spawn(feed.settler.run(), f"settle {self.name}"))

    def books(self) -> Mapping[str, int]:
        """Return what became of the deliveries so far, and how many are in hand."""
        return {**self.counts, "in-hand": sum(len(feed.works) for feed in self._feeds)}

    # ---- receiving

    async def _receive(self, feed: Feed) -> None:
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
            except TransportError as error:
                self._trouble(f"receiving failed: {error}")
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
        self._trouble(f"the subscription ended ({reason}); opening it again")
        await self._s.clock.sleep(_PAUSE)
        try:
            await feed.subscription.close()
            feed.subscription = await self._s.resubscribe(feed.source)
        except CatgaError as error:
            self._trouble(f"it could not be opened: {error}")

    def _trouble(self, detail: str) -> None:
        self._s.emit(TransportEvent(EventKind.TROUBLE, f"{self.name}: {detail}"))

    async def _admit(self, feed: Feed, deliveries: Sequence[Delivery]) -> None:
        """Read the envelopes, sort out poison and what was completed before, queue the rest."""
        ready: list[Work] = []
        once: list[Work] = []
        now = self._s.clock.monotonic()
        self.counts["received"] += len(deliveries)
        for delivery in deliveries:
            work = Work(feed, delivery, now)
            feed.works.add(work)
            try:
                self._open(work)
            except CodecError as error:
                self._outcomes.poison(work, error)
                continue
            (once if work.exactly and self._outcomes.once is not None else ready).append(work)
        if once and self._outcomes.once is not None:
            admitted = await self._outcomes.once.admit(once)
            ready += admitted.to_handle
            for work in admitted.completed:
                self._outcomes.decide(work, Ack())
            if admitted.failed:
                await self._outcomes.fail_again(admitted.failed)
            for work in admitted.unclear:
                self._outcomes.decide(work, Nack(_PAUSE))
        self._queue(ready)

    def _queue(self, works: Iterable[Work]) -> None:
        """Queue what is to be run; a message that seems to end whoever runs it is not."""
        worn_out = self._outcomes.worn_out
        ready = [work for work in works if work.delivery.attempt == 1 or not worn_out(work)]
        if ready:
            self._pool.put(ready)

    def _open(self, work: Work) -> None:
        delivery = work.delivery
        envelope = work.envelope = read_envelope(delivery.body, delivery.headers)
        if envelope.type != self._type:
            raise UnknownTypeError(f"a {envelope.type!r} came on the subject of {self._type!r}")
        if work.feed.settler is None:
            qos = _AT_MOST
        else:
            least = self._least
            qos = least if envelope.qos < least else envelope.qos  # noqa: FURB136 - a call costs more
            work.exactly = qos is _EXACTLY
        work.context = Context(envelope, delivery, self.handler.group, qos, self._atomic)

    # ---- handling

    def _uncommitted(self, work: Work, result: Conflict | Refused) -> None:
        if isinstance(result, Conflict):
            self._handle_again(work)
        else:
            self._outcomes.refused(work, result.error)

    def _handle_again(self, work: Work) -> None:
        """What it read was changed by another: run it on what is there now, as the same attempt."""
        self.counts["conflict"] += 1
        work.conflicts += 1
        if work.feed.draining or work.conflicts > _CONFLICTS or work.context is None:
            self._outcomes.decide(work, Nack(0.0))
            return
        work.context = work.context.anew()
        work.reply, work.error, work.state = None, None, State.QUEUED
        self._pool.put([work])

    def _handle(self, work: Work) -> Coroutine[Any, Any, None] | None:
        """Run the handler on one delivery, in a worker; return what is left to be awaited."""
        if work.state is not State.QUEUED:
            return None  # given back or lost while it waited
        if work.exactly and self._is_old(work):
            return self._look_again(work)
        return self._begin(work)

    def _is_old(self, work: Work) -> bool:
        """Say whether it may have been completed elsewhere since it was looked up.

        A process that is starved believes in leases that have ended, and would run it again.
        """
        waited = self._s.clock.monotonic() - work.since
        return self._outcomes.once is not None and waited >= work.feed.subscription.lease * _STALE

    async def _look_again(self, work: Work) -> None:
        """Run it unless it was completed meanwhile, or that cannot be told; settle it then."""
        once = self._outcomes.once
        completed = False if once is None else await once.look_again(work)
        if work.state is not State.QUEUED:
            return  # given back or lost meanwhile
        if completed is not False:
            self._outcomes.decide(work, Ack() if completed else Nack(_PAUSE))
            return
        rest = self._begin(work)
        if rest is not None:
            await rest

    def _begin(self, work: Work) -> Coroutine[Any, Any, None] | None:
        envelope, context = work.envelope, work.context
        if envelope is None or context is None:
            return None
        now = self._now()
        delivery = work.delivery
        if delivery.lease_until <= now or delivery.doubtful:
            self._lost(work)  # this process stood still: it may run elsewhere by now
            return None
        if envelope.deadline is not None and self._outcomes.expired(work):
            return None
        try:
            message = self._decode(envelope.data, envelope.version)
        except CodecError as poison:
            self._outcomes.poison(work, poison)
            return None
        remember(message, envelope)
        started = self._s.signals.started
        if started is not None:
            started(context)
        deadline = now + self._timeout
        rest = run_handler(work, message, context, self._invoke, deadline)
        if rest is not None:
            return self._end_later(work, rest)
        self._end(work)
        return None

    async def _end_later(self, work: Work, rest: Coroutine[Any, Any, None]) -> None:
        await rest
        self._end(work)

    def _end(self, work: Work) -> None:
        """A handler has ended."""
        error = work.error
        self.counts["handled" if error is None else "failed"] += 1
        finished = self._s.signals.finished
        if finished is not None:
            finished(work.context, error)
        self._outcomes.conclude(work, error)

    # ---- time

    def sweep(self, now: float) -> None:
        """Stop handlers that are out of time or lease; renew the leases of what is in hand.

        A lease that was renewed up to its limit is left to end: whoever has the message then has
        had it for long enough.
        """
        begun = now - self._s.lease_limit
        for feed in self._feeds:
            third = feed.subscription.lease / 3
            late = []
            for work in list(feed.works):
                if work.deadline <= now:
                    work.cancel(Stop.TIMEOUT)
                left = work.delivery.lease_until - now
                if left <= 0:  # by our own clock: no broker would stop us
                    self._lost(work)
                elif left < 2 * third and work.since > begun:
                    late.append(work)
            if late and not feed.extending and feed.settler is not None:
                feed.extending = True
                self._s.tasks.spawn(self._extend(feed, late), f"extend {self.name}")

    async def _extend(self, feed: Feed, works: list[Work]) -> None:
        try:
            results = await feed.subscription.extend([work.delivery for work in works])
            for work, result in zip(works, results, strict=True):
                if isinstance(result, Lost):
                    self._lost(work)
        finally:
            feed.extending = False

    def _lost(self, work: Work) -> None:
        """Somebody else may have it by now: let go of it, wherever it is."""
        if work.state is State.RUNNING:
            work.cancel(Stop.LEASE_LOST)
        elif work.state is State.QUEUED:
            self._outcomes.off_hands(work, "lost")

    # ---- the end

    def leave(self) -> None:
        """Read no further: a closed subscription answers at once, and would be asked for ever."""
        for feed in self._feeds:
            feed.leave()

    async def drain(self, timeout: float) -> Drained:
        """Finish what is in hand and give back the rest, all of it within `timeout` seconds."""
        clock, spawn = self._s.clock, self._s.tasks.spawn
        # What is not finished must still be stopped, then given back: time is kept for both.
        reserve = min(_LAST_STEPS, timeout / 3)
        handling = Deadline(clock, timeout - reserve)
        stopping = Deadline(clock, timeout - reserve / 2)
        deadline = Deadline(clock, timeout)
        before = self._finished()
        stops = [spawn(feed.stop(), f"drain {self.name}") for feed in self._feeds]
        await handling.wait(stops)
        returned = self._give_back()
        await handling.wait(self._receivers)
        returned += self._give_back()
        await self._pool.join(clock, handling.left)
        stopped = self._stop_the_rest()
        if stopped:
            await self._pool.join(clock, stopping.left)
        for feed in self._feeds:
            if feed.settler is not None:
                feed.settler.close()
        await deadline.wait(self._settlers)
        closing = [spawn(each.subscription.close(), f"close {self.name}") for each in self._feeds]
        await Deadline(clock, max(deadline.left, _CLOSING)).wait(closing)
        return self._report(self._finished() - before, returned, stopped)

    def _finished(self) -> int:
        return self.counts["handled"] + self.counts["failed"]

    def _give_back(self) -> list[Work]:
        """Give back what is stored and no handler has begun: others can have it at once."""
        waiting = self._in_state(State.QUEUED)
        back = [work for work in waiting if work.feed.settler is not None]
        for work in back:
            self._outcomes.decide(work, Nack(0.0))
        return back

    def _stop_the_rest(self) -> list[Work]:
        """Stop what still runs; what only waits now is QoS 0, and nobody else could have it."""
        running = self._in_state(State.RUNNING)
        for work in running:
            work.cancel(Stop.DRAIN)
        waiting = self._in_state(State.QUEUED)
        for work in waiting:
            self._outcomes.off_hands(work, "dropped")
        return running + waiting

    def _in_state(self, state: State) -> list[Work]:
        return [work for feed in self._feeds for work in feed.works if work.state is state]

    @staticmethod
    def _report(finished: int, returned: list[Work], stopped: list[Work]) -> Drained:
        """Tell by what became of each, not by what was meant to."""
        back = sum(work.ended in {"nack", "lost"} for work in returned)
        given_up = [work for work in stopped if work.ended != "ack"]
        # A handler that was stopped and ended has been counted as one that finished.
        ended = sum(work.task is not None and work.state is not State.RUNNING for work in given_up)
        return Drained(finished - ended, back, len(returned) - back + len(given_up))
