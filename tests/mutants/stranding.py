"""What would strand a message, drop it, or try it for ever: wrong in one way each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from catga.engine import consuming
from catga.engine.consuming import Consumer
from catga.engine.outcomes import Outcomes
from catga.engine.settling import Settler
from catga.engine.suspects import Suspects
from catga.engine.work import State, Work
from catga.policy import Retries
from catga.policy.retry import Again, Verdict
from catga.spi import Delivery, Done, Nack, Outgoing, Settlement, SettleResult, Source
from catga_inmemory.groups import Group
from catga_inmemory.log import Entry, Stream
from catga_inmemory.subscriptions import LogSubscription
from mutants.mutation import Base, mutant


@mutant(Base.STRANDING, Retries, "after", law="test_a_failing_message_is_never_tried_hot")
def tries_again_at_once(real: Any) -> Any:
    """Whatever the backoff, a failed message is tried again without waiting."""

    def after(
        self: Retries, attempt: int, error: BaseException, random: Callable[[], float]
    ) -> Verdict:
        verdict: Verdict = real(self, attempt, error, random)
        return Again(0.0) if isinstance(verdict, Again) else verdict

    return after


@mutant(
    Base.STRANDING,
    Retries,
    "_for",
    law="test_the_handler_speaks_before_the_type_and_that_before_the_settings",
)
def parks_after_one_attempt(real: Any) -> Any:
    """Whatever the policy says, the first failure is the last."""

    def for_(self: Retries, error: BaseException) -> Retries | None:
        return None

    return for_


@mutant(
    Base.STRANDING,
    Retries,
    "worn_out",
    law="test_a_message_that_ends_its_processes_is_parked_on_arrival",
)
def never_parks_what_nobody_concludes(real: Any) -> Any:
    """A message that kills its process is run again and again."""

    def worn_out(self: Retries, attempt: int) -> bool:
        return False

    return worn_out


@mutant(
    Base.STRANDING,
    Retries,
    "worn_out",
    law="test_a_message_that_ends_its_processes_is_parked_on_arrival",
)
def parks_what_was_only_given_back(real: Any) -> Any:
    """A delivery beyond the attempts is parked, whoever used them up."""

    def worn_out(self: Retries, attempt: int) -> bool:
        return attempt > self.most

    return worn_out


@mutant(
    Base.STRANDING,
    Consumer,
    "_give_back",
    law="test_a_drain_keeps_its_deadline_and_tells_the_truth",
)
def drops_what_has_not_begun_on_drain(real: Any) -> Any:
    """What a drain finds waiting is let go of; its lease has to end before another gets it."""

    def give_back(self: Consumer) -> list[Work]:
        waiting = self._in_state(State.QUEUED)
        for work in waiting:
            self._outcomes.off_hands(work, "nack")
        return waiting

    return give_back


@mutant(
    Base.STRANDING,
    Consumer,
    "_stop_the_rest",
    law="test_a_drain_keeps_its_deadline_and_tells_the_truth",
)
def leaves_what_runs_to_its_lease_on_drain(real: Any) -> Any:
    """What still runs at the deadline is neither stopped nor given back."""

    def stop_the_rest(self: Consumer) -> list[Work]:
        return self._in_state(State.RUNNING)

    return stop_the_rest


@mutant(
    Base.STRANDING,
    consuming,
    "Deadline",
    law="test_a_drain_keeps_its_deadline_and_tells_the_truth",
)
def gives_every_phase_of_a_drain_the_whole_time(real: Any) -> Any:
    """Each phase takes the deadline anew."""

    class Deadline(real):  # type: ignore[misc]  # of what is replaced
        def __init__(self, clock: Any, seconds: float) -> None:
            super().__init__(clock, seconds)
            self._whole = seconds

        @property
        def left(self) -> float:
            return 3 * self._whole

    return Deadline


@mutant(Base.STRANDING, Outcomes, "conclude", law="test_who_was_stopped_by_a_drain_has_not_failed")
def counts_a_drain_as_a_failure(real: Any) -> Any:
    """A handler that a drain stopped has failed, for the last time perhaps."""

    def conclude(self: Outcomes, work: Work, error: BaseException | None) -> None:
        work.stop = None
        real(self, work, error)

    return conclude


@mutant(
    Base.STRANDING,
    Consumer,
    "sweep",
    law="test_a_lease_has_a_limit_and_what_comes_after_it_has_no_effect",
)
def renews_a_lease_for_ever(real: Any) -> Any:
    """A handler that hangs keeps its message as long as its process lives."""

    def sweep(self: Consumer, now: float) -> None:
        for feed in self._feeds:
            for work in feed.works:
                work.since = now
        real(self, now)

    return sweep


@mutant(
    Base.STRANDING,
    Outcomes,
    "conclude",
    law="test_a_lease_has_a_limit_and_what_comes_after_it_has_no_effect",
)
def settles_what_it_has_lost(real: Any) -> Any:
    """A handler that lost its lease and succeeds all the same is said to have succeeded."""

    def conclude(self: Outcomes, work: Work, error: BaseException | None) -> None:
        if error is None and work.feed.settler is not None:
            self.off_hands(work, "ack")
        else:
            real(self, work, error)

    return conclude


@mutant(Base.STRANDING, Settler, "_park", law="test_the_last_failure_becomes_a_dead_letter")
def settles_before_it_parks(real: Any) -> Any:
    """The original is settled first, then its dead letter is stored, or not."""

    async def park(self: Settler, batch: list[Work]) -> list[Work]:
        await self._feed.subscription.settle(batch)
        left: list[Work] = await real(self, batch)
        return left

    return park


@mutant(Base.STRANDING, Outcomes, "off_hands", law="test_the_books_balance_at_every_moment")
def forgets_to_write_down_what_was_lost(real: Any) -> Any:
    """A delivery that was nacked stands nowhere in the books."""

    def off_hands(self: Outcomes, work: Work, word: str) -> None:
        real(self, work, word)
        if word == "nack":
            self._counts[word] -= 1

    return off_hands


@mutant(
    Base.STRANDING,
    LogSubscription,
    "_settle_one",
    law="test_what_is_given_back_does_not_wait_for_its_lease",
)
def a_nack_does_nothing(real: Any) -> Any:
    """What is given back stays where it is until its lease ends; nobody is told."""

    def settle_one(
        self: LogSubscription, delivery: Delivery, outcome: Settlement, now: float
    ) -> SettleResult:
        if isinstance(outcome, Nack):
            return Done()
        result: SettleResult = real(self, delivery, outcome, now)
        return result

    return settle_one


@mutant(
    Base.STRANDING, LogSubscription, "park", law="test_a_late_parking_is_lost_and_stores_nothing"
)
def parks_what_is_no_longer_its_own(real: Any) -> Any:
    """A dead letter is stored by whoever asks for it, the owner of the delivery or not."""

    async def park(
        self: LogSubscription, batch: Sequence[tuple[Delivery, Outgoing]]
    ) -> list[SettleResult]:
        for _, letter in batch:
            self._broker.store([letter])
        results: list[SettleResult] = await real(self, batch)
        return results

    return park


@mutant(
    Base.STRANDING,
    Stream,
    "_hold_back",
    law="test_a_delayed_message_does_not_come_before_its_time",
)
def delivers_a_delayed_message_at_once(real: Any) -> Any:
    """Nothing is held back."""

    def hold_back(self: Stream, entry: Entry, not_before: Any) -> bool:
        return False

    return hold_back


@mutant(
    Base.STRANDING,
    Stream,
    "_hold_back",
    law="test_a_delayed_message_does_not_come_before_its_time",
)
def forgets_a_delayed_message(real: Any) -> Any:
    """What is held back is never delivered."""

    def hold_back(self: Stream, entry: Entry, not_before: Any) -> bool:
        return True

    return hold_back


@mutant(Base.STRANDING, Stream, "declare", law="test_a_delayed_message_outlives_who_sent_it")
def gives_a_new_group_what_still_waits(real: Any) -> Any:
    """A group that comes while a message is held back gets it at once."""

    def declare(self: Stream, source: Source) -> Group:
        group: Group = real(self, source)
        group.add(list(self.waiting.values()))
        return group

    return declare


@mutant(
    Base.STRANDING,
    consuming,
    "run_handler",
    law="test_whatever_a_handler_ends_with_is_a_failed_attempt",
)
def knows_no_end_but_an_exception(real: Any) -> Any:
    """What a handler raises that is no `Exception` leaves its message in hand."""

    async def run_handler(work: Work, *rest: Any) -> None:
        left = real(work, *rest)
        if left is not None:
            await left
        if work.error is not None and not isinstance(work.error, Exception):
            await asyncio.Event().wait()

    return run_handler


@mutant(Base.STRANDING, Suspects, "add", law="test_what_came_as_often_beside_such_a_message_is_run")
def parks_whatever_came_too_often(real: Any) -> Any:
    """What was only prefetched beside a message that ends its processes is parked with it."""

    def add(self: Suspects, work: Work) -> None:
        self._has_parked = False
        real(self, work)

    return add
