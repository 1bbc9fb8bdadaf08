"""Consuming: one handler, fed by its subscriptions, run by a bounded number of workers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any

from catga.codecs import UNREAD
from catga.engine.handling import Call, Handler
from catga.engine.intake import Intake
from catga.engine.once import Once
from catga.engine.outcomes import Outcomes
from catga.engine.pool import Pool
from catga.engine.running import run_handler
from catga.engine.services import Services
from catga.engine.settling import Settler
from catga.engine.suspects import Suspects
from catga.engine.transaction import Atomic
from catga.engine.work import Feed, State, Stop, Work
from catga.ground.deadline import Deadline
from catga.model.envelope import Envelope
from catga.model.message import Identity, Message, adopt
from catga.model.outcome import Drained
from catga.spi import (
    Ack,
    Completion,
    Conflict,
    Lost,
    Nack,
    Refused,
    Source,
)

__all__ = ["Consumer"]

_ACK, _QUEUED = Ack(), State.QUEUED
_NEVER = float("inf")
_PAUSE = 0.5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 1.0
"""Seconds: how long who met a conflict waits at the most before it runs again; it doubles."""
_CARRIERS = 2
"""Who carry out settlements of one feed: while the server works on a batch the next is sent."""
_LAST_STEPS = 2.0
"""Seconds of a drain, or a third of it, that are kept for giving back what did not finish."""
_CLOSING = 1.0
"""Seconds that subscriptions may take to close when a drain has no time left."""


class Consumer:
    """Runs one handler on what its subscriptions deliver."""

    def __init__(self, handler: Handler, call: Call, services: Services) -> None:
        self.handler = handler
        self.counts: Counter[str] = Counter()
        self._handled = 0
        self._call = call
        self._decode = handler.wire.decode
        self._timed = handler.timeout is not None
        self._timeout = _NEVER if handler.timeout is None else handler.timeout
        self._now = services.clock.monotonic
        self._s = services
        self._feeds: list[Feed] = []
        self._receivers: list[asyncio.Task[None]] = []
        self._settlers: list[asyncio.Task[None]] = []
        self.name = f"{handler.group or 'broadcast'}/{handler.wire.name}"
        self._outcomes = Outcomes(handler, services, self.counts, self.name, self._queue)
        self._plain = not handler.is_request
        self._adopts = issubclass(handler.wire.cls, Message)
        self._note = self._outcomes.handled.append
        self._pool = Pool(
            handler.concurrency,
            self._handle,
            self._outcomes.account,
            self._outcomes.unforeseen,
            services.tasks,
            services.clock,
            f"worker {self.name}",
        )
        self._suspects = Suspects(self._outcomes.give_up, self._pool.put)
        self._intake = Intake(handler, services, self._outcomes, self.name, self._queue)

    async def start(self, sources: Sequence[Source]) -> None:
        """Open the subscriptions; returns once the broker has confirmed them all."""
        for source in sources:
            subscription = await self._s.transport.subscribe(source)
            feed = Feed(subscription, source, self._s.window, self.handler.group)
            self._feeds.append(feed)
            if source.durable:
                self._make_durable(feed, source)
        for feed in self._feeds:
            reading = self._intake.run(feed)
            self._receivers.append(self._s.tasks.spawn(reading, f"receive {self.name}"))

    def _make_durable(self, feed: Feed, source: Source) -> None:
        transport = self._s.transport
        inbox = transport.inbox
        if inbox is not None and not source.ephemeral:
            feed.atomic = Atomic(
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
            outcomes=self._outcomes,
            on_uncommitted=self._uncommitted,
        )
        for _ in range(_CARRIERS):
            self._settlers.append(self._s.tasks.spawn(feed.settler.run(), f"settle {self.name}"))

    def books(self) -> Mapping[str, int]:
        """Return what became of the deliveries so far, and how many are in hand."""
        in_hand = sum(len(feed.works) for feed in self._feeds)
        handled = {"handled": self._handled} if self._handled else {}
        return {**self.counts, **handled, "in-hand": in_hand}

    def _queue(self, works: Iterable[Work]) -> None:
        """Queue what is to be run, but not what seems to end whoever runs it."""
        worn_out = self._outcomes.worn_out
        ready = []
        for work in works:
            if work.delivery.attempt == 1 or not worn_out(work):
                ready.append(work)
            else:
                self._suspects.add(work)
        if ready:
            self._pool.put(ready)

    # ---- handling

    def _uncommitted(self, work: Work, result: Conflict | Refused) -> None:
        if isinstance(result, Conflict):
            self._handle_again(work)
        else:
            self._outcomes.refused(work, result.error)

    def _handle_again(self, work: Work) -> None:
        """What it read was changed by another: run it on what is there now, as the same attempt,
        for as long as its lease is renewed. Who meets another one again waits, each its own time:
        else many that write one key would hinder each other all the time."""
        self.counts["conflict"] += 1
        work.conflicts += 1
        if work.feed.draining:
            self._outcomes.decide(work, Nack(0.0))
            return
        delivery = work.delivery
        # The message as well: what its handler was given may have been changed by it.
        work.envelope, work.message = self._intake.read(delivery.body, delivery.headers)
        work.begin_anew()
        if work.conflicts == 1:
            self._pool.put([work])
            return

        def put() -> None:
            if not work.feed.draining:  # else it is given back
                self._pool.put([work])

        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(work.conflicts, 62))
        self._s.clock.call_later(longest * self._s.random(), put)

    def _is_old(self, work: Work) -> bool:
        """Say whether it may have been completed since it was looked up.

        A process that is starved believes in leases that have ended, and would run it again.
        """
        old = work.waited or self._now() - work.since >= work.feed.stale_after
        return old and self._outcomes.once is not None

    async def _look_again(self, work: Work) -> None:
        """Run it unless it was completed or has failed meanwhile, or that cannot be told."""
        once = self._outcomes.once
        if once is None:
            return
        work.waited = False
        if await self._outcomes.admitted(await once.sort([work])):
            rest = self._handle(work, looked=True)
            if rest is not None:
                await rest

    def _handle(self, work: Work, *, looked: bool = False) -> Coroutine[Any, Any, None] | None:
        """Run the handler on one delivery, in a worker; return what is left to be awaited."""
        envelope, message, deadline = work.envelope, work.message, _NEVER
        if work.state is not _QUEUED or envelope is None:
            return None  # given back or lost while it waited
        if work.exactly and not looked and self._is_old(work):
            return self._look_again(work)
        if self._timed or work.feed.settler is not None:
            delivery, now = work.delivery, self._now()
            if delivery.lease_until <= now or delivery.doubtful:
                self._lost(work)  # this process stood still: it may run elsewhere by now
                return None
            deadline = now + self._timeout
        if envelope.deadline is not None and self._outcomes.expired(work):
            return None
        if message is UNREAD and (message := self._read(work, envelope)) is UNREAD:
            return None
        if self._adopts:  # the message has the identity it was sent with
            adopt(message, Identity(envelope.id, envelope.time, envelope.correlation_id))
        started = self._s.signals.started
        if started is not None:
            started(work.context)
        rest = run_handler(work, message, self._call, deadline, self._s.tasks)
        if rest is not None:
            return self._end_later(work, rest)
        self._end(work)
        return None

    def _read(self, work: Work, envelope: Envelope) -> Any:
        """Return the message; `UNREAD` when it is poison, which is dealt with then."""
        try:
            return self._decode(envelope.data, envelope.version)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self._outcomes.poison(work, error)
            return UNREAD

    async def _end_later(self, work: Work, rest: Coroutine[Any, Any, None]) -> None:
        await rest
        self._end(work)

    def _end(self, work: Work) -> None:
        """A handler has ended."""
        error = work.error
        if error is None:
            self._handled += 1
        else:
            self.counts["failed"] += 1
        finished = self._s.signals.finished
        if finished is not None:
            finished(work.context, error)
        if error is None and self._plain and work.feed.settler is None:
            self._note(work)  # almost always at QoS 0
        else:
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
                # By our own clock, no broker would stop us; or it has forgotten us, and another
                # one may be at it: then what must not be done twice is not done to its end here.
                if left <= 0 or (work.exactly and work.delivery.doubtful):
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
        await self._pool.join(handling.left)
        stopped = self._stop_the_rest()
        if stopped:
            await self._pool.join(stopping.left)
        for feed in self._feeds:
            if feed.settler is not None:
                feed.settler.close()
        await deadline.wait(self._settlers)
        closing = [spawn(each.subscription.close(), f"close {self.name}") for each in self._feeds]
        await Deadline(clock, max(deadline.left, _CLOSING)).wait(closing)
        return self._report(self._finished() - before, returned, stopped)

    def _finished(self) -> int:
        return self._handled + self.counts["failed"]

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
