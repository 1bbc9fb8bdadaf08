"""What follows a delivery: acknowledge, try again, or give up. And the books kept of it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from catga.engine.deadletters import describe
from catga.engine.handling import Handler
from catga.engine.once import Admitted, Once
from catga.engine.services import Services
from catga.engine.wording import tell_of, words_of
from catga.engine.work import State, Stop, Work
from catga.errors import CodecError, DecodeError, LeaseLost
from catga.model.retry import Reject, Retry
from catga.policy import Park
from catga.spi import Ack, Nack, Outgoing, Record
from catga.spi import Reject as Rejection

__all__ = ["Outcomes"]

_log = logging.getLogger("catga")
_ACK = Ack()
_PAUSE = 0.5
"""Seconds until what cannot be told is asked again."""


class Outcomes:
    """Decides what becomes of the deliveries of one handler, and accounts for each."""

    def __init__(
        self,
        handler: Handler,
        services: Services,
        counts: Counter[str],
        name: str,
        requeue: Callable[[Iterable[Work]], None],
    ) -> None:
        self._handler = handler
        self._services = services
        self._counts = counts
        self._name = name
        self._requeue = requeue
        self._answers = handler.is_request
        self.handled: list[Work] = []
        """At QoS 0, where nothing is settled; not accounted for yet."""
        self.once: Once | None = None
        """Set when this handler has completion records."""

    def received(self, count: int) -> None:
        """Account for deliveries that came."""
        self._counts["received"] += count

    def conclude(self, work: Work, error: BaseException | None) -> None:
        """Decide what follows a handler that ended, with this error or without one."""
        if error is not None:
            self._tell(work, error)
        settler = work.feed.settler
        if settler is None:
            self._conclude_live(work, error)
        elif work.stop is Stop.LEASE_LOST:
            self.off_hands(work, "lost")
        elif error is None:
            if work.exactly and self.once is not None:
                self._record(work, self.once)
            elif self._answers:
                self._respond(work, None)
            settler.add(work)
        elif work.stop is Stop.DRAIN:
            self.decide(work, Nack(0.0))  # it has not failed: another may have it at once
        else:
            self._judge(work, error)

    def _conclude_live(self, work: Work, error: BaseException | None) -> None:
        if self._answers:
            self._respond(work, error)
        if error is None:
            self.handled.append(work)
        else:
            self.off_hands(work, "dropped")

    def _judge(self, work: Work, error: BaseException) -> None:
        """A stored message failed: let it come again, or give up."""
        verdict = self._handler.retries.after(work.delivery.attempt, error, self._services.random)
        if isinstance(verdict, Park):
            self.park(work, verdict.cause, error)
        else:
            self.decide(work, Nack(verdict.delay))

    def _tell(self, work: Work, error: BaseException) -> None:
        _log.warning(
            "%s failed on %s %s, attempt %d: %r",
            self._handler.name,
            self._handler.wire.name,
            work.delivery.sequence or "(live)",
            work.delivery.attempt,
            error,
            # What a handler asks for in so many words needs no trace.
            exc_info=None if isinstance(error, Retry | Reject) else error,
        )

    def _record(self, work: Work, once: Once) -> None:
        """Say what is to be recorded of a message that was handled."""
        if self._answers:
            work.reply = self._reply(work)
        work.record = once.record(work)
        work.effects = work.written

    def refused(self, work: Work, error: BaseException) -> None:
        """Nothing of what the handler did was committed, so that it has failed after all."""
        work.reply = None
        self.conclude(work, error)

    def unforeseen(self, work: Work, error: BaseException) -> None:
        """Dealing with a delivery raised: it has failed with that, if it is still ours."""
        if work.state is State.GONE:
            _log.error("%s met what nobody foresaw", self._name, exc_info=error)
        else:
            self.refused(work, error)

    def expired(self, work: Work) -> bool:
        """Say whether the requester has given up; if so the delivery is dealt with.

        Whoever replays a dead letter knows that, and wants it handled.
        """
        deadline = work.envelope.deadline if work.envelope is not None else None
        if deadline is None or work.delivery.replays or deadline > self._services.clock.now():
            return False
        self._counts["expired"] += 1
        if work.feed.settler is None:
            self.off_hands(work, "dropped")
        else:
            attempt = work.delivery.attempt
            when = "it was started: nothing was done" if attempt == 1 else f"attempt {attempt}"
            error = TimeoutError(f"the deadline of the request had passed before {when}")
            self.park(work, "the requester's deadline had passed", error)
        return True

    async def admitted(self, admitted: Admitted) -> list[Work]:
        """Settle what was completed, has failed or cannot be told; return what is to be run."""
        for work in admitted.completed:
            if work.state is State.QUEUED:  # not given back or lost meanwhile
                self.decide(work, _ACK)
        for work in admitted.unclear:
            if work.state is State.QUEUED:
                self.decide(work, Nack(_PAUSE))
        if admitted.failed:
            await self._fail_again(admitted.failed)
        return [work for work in admitted.to_handle if work.state is State.QUEUED]

    async def _fail_again(self, works: Sequence[Work]) -> None:
        """Park requests that had failed before, and tell who asked what was kept of it."""
        if self.once is None:
            return
        try:
            kept = await self.once.failures(works)
        except Exception as error:
            words = tell_of(error, "reading the failures of requests met what nobody foresaw")
            _log.warning("the failures of requests cannot be read: %s", words)
            kept = [None] * len(works)
        for work, body in zip(works, kept, strict=True):
            if work.state is not State.QUEUED:
                continue
            if body is None:
                self.decide(work, Nack(_PAUSE))
            else:
                self._fail_as(work, body)

    def _fail_as(self, work: Work, body: bytes) -> None:
        if work.envelope is not None:
            work.reply = self._services.responder.again(work.envelope, body)
        self.park(work, "it had failed before", self._services.responder.told(body))

    def worn_out(self, work: Work) -> bool:
        """Say whether it has come too often to be run like any other."""
        return work.feed.settler is not None and self._handler.retries.worn_out(
            work.delivery.attempt
        )

    def give_up(self, work: Work) -> None:
        """Park what is worn out without running it."""
        words = (
            f"it has come {work.delivery.attempt} times, and the last ones ended without a word: "
            "its handler may end the process it runs in"
        )
        _log.error("%s %s: %s", self._name, work.delivery.sequence, words)
        self.park(work, "attempts exhausted", LeaseLost(words))

    def poison(self, work: Work, error: BaseException) -> None:
        """Give up at once on what cannot be read, however it fails: no further attempt would."""
        if not isinstance(error, CodecError):
            _log.error("%s: reading a message failed", self._name, exc_info=error)
            error = DecodeError(f"reading it failed: {type(error).__name__}: {words_of(error)}")
        _log.error("%s: undecodable message %s: %s", self._name, work.delivery.sequence, error)
        self._counts["poison"] += 1
        if work.feed.settler is None:
            self.off_hands(work, "dropped")
        else:
            self.park(work, "poison", error)

    def park(self, work: Work, cause: str, error: BaseException | None) -> None:
        """Keep it as a dead letter, then take it off the broker's hands."""
        if work.feed.settler is None:
            return
        letter = describe(
            work.delivery,
            message_id=None if work.envelope is None else work.envelope.id,
            created_at=None if work.envelope is None else work.envelope.time,
            group=work.feed.source.group,
            cause=cause,
            error=error,
            now=self._services.clock.now(),
        )
        work.response = error
        work.state = State.SETTLING
        work.outcome, work.dead_letter = Rejection(cause), letter
        work.record, work.effects = self._failure(work, error), None
        work.feed.settler.add(work)

    def _failure(self, work: Work, error: BaseException | None) -> Record | None:
        """Return what is kept of a request that fails for good: whoever asks again is told."""
        if not self._answers or self.once is None or not work.exactly or work.envelope is None:
            return None
        if work.reply is None:
            told = error or TimeoutError("it was not handled in time")
            work.reply = self._services.responder.failure(work.envelope, told)
        return None if work.reply is None else self.once.failure(work, work.reply.body)

    def decide(self, work: Work, outcome: Ack | Nack) -> None:
        """Let the settler carry out a decision (there is none to carry out at QoS 0)."""
        work.state = State.SETTLING
        if work.feed.settler is not None:
            work.outcome = outcome
            work.record = work.effects = None
            work.feed.settler.add(work)

    def account(self) -> None:
        """Account for what was handled at QoS 0 since the last time: one by one it is dear."""
        if self.handled:
            works = self.handled[:]
            self.handled.clear()
            feeds = {work.feed for work in works}
            if len(feeds) == 1:
                self.acknowledged(works)
                return
            for feed in feeds:
                self.acknowledged([work for work in works if work.feed is feed])

    def acknowledged(self, works: Sequence[Work]) -> None:
        """Account for deliveries of one feed that were handled and are settled."""
        self._counts["ack"] += len(works)
        works[0].feed.release_all(works, "ack")
        settled = self._services.signals.settled
        if settled is not None:
            for work in works:
                if work.context is not None:
                    settled(work.context, "ack")
        if self.once is None:
            return
        if self._answers:
            for work in works:
                if work.reply is not None:
                    self._services.responder.send(work.reply)
        for copy in self.once.completed(works):
            self.decide(copy, _ACK)

    def off_hands(self, work: Work, word: str) -> None:
        """Account for one delivery that is settled, lost or dropped."""
        self._counts[word] += 1
        work.ended = word
        work.feed.release(work)
        settled = self._services.signals.settled
        if settled is not None and work.context is not None:
            settled(work.context, word)
        parked = word == "dead-letter"
        if parked and work.reply is None:
            self._respond(work, work.response or TimeoutError("it was not handled in time"))
        if not work.exactly:
            return
        if (parked or word == "ack") and work.reply is not None:
            self._services.responder.send(work.reply)
        if self.once is not None:
            to_handle, done = self.once.after(work, completed=word == "ack")
            for copy in done:
                self.decide(copy, _ACK)
            self._requeue(to_handle)

    def _reply(self, work: Work) -> Outgoing | None:
        """Return the response as it will be kept and sent, if somebody asked."""
        if work.envelope is None or not work.envelope.reply_to:
            return None
        return self._services.responder.answer(self._handler.wire, work.envelope, work.response)

    def _respond(self, work: Work, error: BaseException | None) -> None:
        if self._answers and work.envelope is not None and work.envelope.reply_to:
            self._services.responder.respond(
                self._handler.wire, work.envelope, work.response, error
            )
