"""What a handler asks for and does not get: wrong in one way each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from catga.engine.consuming import Consumer
from catga.engine.work import State, Stop, Work
from catga.model.retry import Reject, Retry
from catga.policy import Retries
from catga.policy.retry import Verdict
from catga.spi import Nack
from mutants.mutation import Base, mutant

_After = Callable[[Retries, int, BaseException, Callable[[], float]], Verdict]


@mutant(Base.STRANDING, Retries, "after", law="test_a_handler_may_ask_to_be_tried_later")
def ignores_what_a_handler_asks_for(real: _After) -> _After:
    """`Retry(after=…)` waits as long as any other failure."""

    def after(
        self: Retries, attempt: int, error: BaseException, random: Callable[[], float]
    ) -> Verdict:
        return real(self, attempt, RuntimeError() if isinstance(error, Retry) else error, random)

    return after


@mutant(Base.STRANDING, Retries, "after", law="test_a_handler_may_reject")
def tries_again_what_was_rejected(real: _After) -> _After:
    """`Reject` is a failure like any other."""

    def after(
        self: Retries, attempt: int, error: BaseException, random: Callable[[], float]
    ) -> Verdict:
        return real(self, attempt, RuntimeError() if isinstance(error, Reject) else error, random)

    return after


@mutant(
    Base.STRANDING,
    Work,
    "cancel",
    law="test_a_handler_that_hangs_past_its_timeout_gets_it_again",
)
def lets_a_handler_hang(real: Any) -> Any:
    """A handler that is out of time is not stopped."""

    def cancel(self: Work, why: Stop) -> None:
        if why is not Stop.TIMEOUT:
            real(self, why)

    return cancel


@mutant(
    Base.STRANDING,
    Work,
    "cancel",
    law="test_a_lease_has_a_limit_and_what_comes_after_it_has_no_effect",
)
def lets_a_handler_go_on_without_its_lease(real: Any) -> Any:
    """A handler that has lost its lease is not told."""

    def cancel(self: Work, why: Stop) -> None:
        if why is not Stop.LEASE_LOST:
            real(self, why)

    return cancel


@mutant(Base.STRANDING, Consumer, "_give_back", law="test_a_drain_handles_what_was_received_live")
def drops_what_came_live_on_drain(real: Any) -> Any:
    """What came at QoS 0 and has not begun is given back like the rest: to nobody."""

    def give_back(self: Consumer) -> list[Work]:
        waiting = self._in_state(State.QUEUED)
        for work in waiting:
            self._outcomes.decide(work, Nack(0.0))
        return waiting

    return give_back
