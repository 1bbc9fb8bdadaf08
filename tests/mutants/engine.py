"""The engine, wrong in one way each, over the transport in memory that is right."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from catga import plan
from catga.engine import consuming
from catga.engine import work as in_hand
from catga.engine.consuming import Consumer
from catga.engine.once import Admitted, Once
from catga.engine.outcomes import Outcomes
from catga.engine.settling import Settler
from catga.engine.transaction import Transaction
from catga.engine.work import Work
from catga.errors import CodecError
from catga.ground.ids import new_message_id
from catga.model.qos import QualityOfService
from catga.spi import Ack, Completion, Nack, Record, Reject, Settle
from mutants.mutation import Base, mutant


@mutant(
    Base.ENGINE,
    Settler,
    "_park",
    law="test_what_cannot_be_parked_is_not_settled_and_comes_again",
)
def settles_what_could_not_be_parked(real: Any) -> Any:
    """A message is settled as if its dead letter had been stored, which was refused."""

    async def park(self: Settler, batch: list[Work]) -> list[Work]:
        left: list[Work] = await real(self, batch)
        for work in left:
            work.outcome = Reject("parked")
        return left

    return park


@mutant(
    Base.ENGINE, consuming, "run_handler", law="test_a_crash_in_mid_handler_hands_it_to_another"
)
def acks_before_handling(real: Any) -> Any:
    """The delivery is acknowledged, then its handler is called."""

    async def run_handler(work: Work, *rest: Any) -> None:
        await work.feed.subscription.settle([Settle(work.delivery, Ack())])
        left = real(work, *rest)
        if left is not None:
            await left

    return run_handler


@mutant(
    Base.ENGINE,
    Outcomes,
    "conclude",
    law="test_a_handler_that_raises_gets_it_again_as_the_next_attempt",
)
def acks_on_failure(real: Any) -> Any:
    """Whatever the handler raised, the delivery is acknowledged."""

    def conclude(self: Outcomes, work: Work, error: BaseException | None) -> None:
        real(self, work, None)

    return conclude


@mutant(Base.ENGINE, Consumer, "_handle", law="test_a_failed_message_is_handled_again")
def records_before_the_handler(real: Any) -> Any:
    """The completion is recorded, then the handler is called."""

    async def handle(self: Consumer, work: Work, *, looked: bool = False) -> None:
        once, inbox, context = self._outcomes.once, self._s.transport.inbox, work.context
        exactly = context is not None and context.qos is QualityOfService.EXACTLY_ONCE
        if exactly and once is not None and inbox is not None and work.envelope is not None:
            await inbox.record([once.record(work)])
        left = real(self, work, looked=looked)
        if left is not None:
            await left

    return handle


@mutant(
    Base.ENGINE, Outcomes, "decide", law="test_the_end_of_a_bus_gives_back_what_it_did_not_begin"
)
def loses_what_was_prefetched_on_drain(real: Any) -> Any:
    """What drain finds unhandled is acknowledged instead of given back."""

    def decide(self: Outcomes, work: Work, outcome: Ack | Nack) -> None:
        real(self, work, Ack() if outcome == Nack(0.0) else outcome)

    return decide


@mutant(
    Base.ENGINE, consuming, "run_handler", law="test_a_handler_that_was_cancelled_gets_it_again"
)
def swallows_cancellation(real: Any) -> Any:
    """A handler that was cancelled counts as one that succeeded."""

    async def run_handler(work: Work, *rest: Any) -> None:
        left = real(work, *rest)
        if left is not None:
            await left
        if work.stop is not None or isinstance(work.error, asyncio.CancelledError):
            work.error = None

    return run_handler


@mutant(
    Base.ENGINE, Outcomes, "poison", law="test_poison_is_parked_once_with_its_cause_and_its_bytes"
)
def acks_a_poison_message_without_parking(real: Any) -> Any:
    """What cannot be read is acknowledged and forgotten."""

    def poison(self: Outcomes, work: Work, error: CodecError) -> None:
        self.decide(work, Ack())

    return poison


@mutant(
    Base.ENGINE,
    Consumer,
    "_extend",
    law="test_a_handler_longer_than_the_lease_keeps_its_message_and_what_waits_behind_it",
)
def never_renews_a_lease(real: Any) -> Any:
    """A handler that takes longer than the lease loses its message to another member."""

    async def extend(self: Consumer, feed: Any, works: list[Work]) -> None:
        feed.extending = False

    return extend


@mutant(
    Base.ENGINE, Settler, "_carry_out", law="test_what_the_group_completed_is_not_handled_again"
)
def acknowledges_without_a_record(real: Any) -> Any:
    """At QoS 2 the delivery is acknowledged, and no completion is recorded."""

    async def carry_out(self: Settler, batch: list[Work]) -> None:
        for work in batch:
            work.record = work.effects = None
        await real(self, batch)

    return carry_out


@mutant(Base.ENGINE, in_hand, "derived_ids", law="test_a_rerun_publishes_nothing_new")
def publishes_under_new_ids(real: Any) -> Any:
    """What a handler publishes at QoS 2 gets an id of chance."""

    def derived_ids(*origin: str) -> Callable[[], str]:
        return new_message_id

    return derived_ids


@mutant(Base.ENGINE, in_hand, "derived_ids", law="test_a_rerun_publishes_nothing_new")
def derives_ids_without_the_ordinal(real: Any) -> Any:
    """All that one handler publishes gets one id."""

    def derived_ids(*origin: str) -> Callable[[], str]:
        first = real(*origin)()
        return lambda: first

    return derived_ids


@mutant(Base.ENGINE, in_hand, "derived_ids", law="test_each_group_publishes_its_own")
def derives_ids_without_the_group(real: Any) -> Any:
    """Two groups that handle one message publish under the same ids."""

    def derived_ids(*origin: str) -> Callable[[], str]:
        return real("", *origin[1:])  # type: ignore[no-any-return]

    return derived_ids


@mutant(Base.ENGINE, Once, "record", law="test_a_response_that_was_lost_is_found_again")
def keeps_no_response(real: Any) -> Any:
    """The completion of a request is recorded without what it was answered with."""

    def record(self: Once, work: Work) -> Record:
        return Record(real(self, work).key)

    return record


@mutant(Base.ENGINE, Once, "admit", law="test_nothing_is_recorded_while_the_handler_runs")
def takes_a_claim_for_done(real: Any) -> Any:
    """Who begins claims it, and whoever meets a claim acknowledges, though nobody is through."""
    claims: dict[Completion, Once] = {}

    async def admit(self: Once, works: Sequence[Work]) -> Admitted:
        found: Admitted = await real(self, works)
        mine, others = list[Work](), list[Work]()
        for work in found.to_handle:
            owner = claims.setdefault(self.record(work).key, self)
            (mine if owner is self else others).append(work)
        return Admitted(mine, found.completed + others, found.failed, found.unclear)

    return admit


@mutant(
    Base.ENGINE,
    Once,
    "after",
    law="test_a_failure_that_is_kept_holds_when_the_lease_ends_before_the_letter_is_stored",
)
def runs_what_waited_without_a_look(real: Any) -> Any:
    """What waited for another delivery of its id is run on what was recorded before that."""

    def after(self: Once, work: Work, *, completed: bool) -> tuple[list[Work], list[Work]]:
        found: tuple[list[Work], list[Work]] = real(self, work, completed=completed)
        for copy in found[0]:
            copy.waited = False
        return found

    return after


@mutant(Base.ENGINE, Outcomes, "acknowledged", law="test_a_repeated_delivery_is_not_answered_again")
def answers_what_it_did_not_handle(real: Any) -> Any:
    """A request that is acknowledged because it was completed before is answered with nothing."""

    def acknowledged(self: Outcomes, works: Sequence[Work]) -> None:
        for work in works:
            if work.reply is None:
                self._respond(work, None)
        real(self, works)

    return acknowledged


@mutant(
    Base.ENGINE,
    Transaction,
    "_publish",
    law="test_a_run_that_fails_publishes_nothing_of_its_transaction",
)
def publishes_before_the_commit(real: Any) -> Any:
    """What is to be part of the commit leaves at once."""

    async def publish(self: Transaction, *rest: Any) -> str:
        message_id: str = await real(self, *rest)
        await self._atomic.transport.publish([self._outgoing.pop()])
        return message_id

    return publish


@mutant(Base.ENGINE, Consumer, "_handle_again", law="test_every_effect_is_there_exactly_once")
def takes_a_conflict_for_done(real: Any) -> Any:
    """What was not written because another was quicker is acknowledged all the same."""

    def handle_again(self: Consumer, work: Work) -> None:
        self._outcomes.decide(work, Ack())

    return handle_again


@mutant(
    Base.ENGINE,
    Consumer,
    "_is_old",
    law="test_what_another_completed_while_it_waited_is_not_begun",
)
def believes_for_ever_what_it_looked_up(real: Any) -> Any:
    """What was not completed when it came is run, however long it has waited since."""

    def is_old(self: Consumer, work: Work) -> bool:
        return False

    return is_old


@mutant(
    Base.ENGINE,
    plan,
    "broken_horizons",
    law="test_windows_that_end_too_early_are_refused_unless_accepted",
)
def forgets_the_replay_horizon(real: Any) -> Any:
    """D is held against redelivery alone, not against what a group made anew gets again."""

    def broken_horizons(**times: float) -> Any:
        return real(**{**times, "retention": 0.0})

    return broken_horizons
