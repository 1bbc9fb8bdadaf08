"""Requests that failed, wrong in one way each: what is kept of it, and what follows from that.

Random programs rarely come so far, and do not shrink to it in time: each is tried on what is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from catga.engine import once
from catga.engine.once import Admitted, Once
from catga.engine.outcomes import Outcomes
from catga.engine.work import Work
from catga.spi import Completion, Record
from mutants.mutation import Base, mutant


@mutant(
    Base.STRANDING,
    Outcomes,
    "_failure",
    law="test_a_repeated_request_that_failed_gets_the_same_error",
)
def keeps_no_failure(real: Any) -> Any:
    """How a request failed is told once, and kept nowhere."""

    def failure(self: Outcomes, work: Work, error: BaseException | None) -> Record | None:
        return None

    return failure


@mutant(Base.STRANDING, once, "failure_of", law="test_a_replay_of_a_request_that_failed_runs_it")
def takes_a_failure_for_a_completion(real: Any) -> Any:
    """How a request failed is recorded as what completed it."""

    def failure_of(key: Completion) -> Completion:
        return key

    return failure_of


@mutant(
    Base.STRANDING,
    Once,
    "admit",
    law="test_another_copy_of_a_request_that_failed_is_parked_and_not_run",
)
def runs_what_had_failed(real: Any) -> Any:
    """A second copy of a request whose failure is kept is run."""

    async def admit(self: Once, works: Sequence[Work]) -> Admitted:
        found: Admitted = await real(self, works)
        return Admitted(found.to_handle + found.failed, found.completed, [], found.unclear)

    return admit
