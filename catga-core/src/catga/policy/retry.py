"""What follows a failed attempt: another one after a while, or the dead letters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from catga.errors import CodecError, ConfigurationError
from catga.model.retry import Reject, Retry, RetryPolicy

__all__ = ["CRASH_MARGIN", "Again", "Park", "Retries", "Verdict", "combine"]

CRASH_MARGIN = 5
"""So many deliveries beyond the attempts are still run.

The broker counts every delivery, also those that ended without a verdict: given back by a member
that left, or lost with one that died. Those are rarely the message's fault, so some are forgiven.
But a message that kills whoever runs it never ends otherwise, so not many: what comes a sixth time
too often is parked without being run."""
_FLOOR = 0.1
"""The least wait, as a share of the longest it could be: zero would be a hot loop now and then."""


@attrs.frozen
class Again:
    """Try again, not before `delay` seconds have passed."""

    delay: float


@attrs.frozen
class Park:
    """Give up: keep it as a dead letter with this cause."""

    cause: str


Verdict = Again | Park


@attrs.frozen
class Retries:
    """The rules of one handler with nothing left open; times in seconds."""

    attempts: int = 5
    base: float = 0.5
    cap: float = 60.0
    by_error: Mapping[type[BaseException], Retries | None] = attrs.field(factory=dict)

    @property
    def most(self) -> int:
        """The most attempts that any error is given."""
        others = (rules.attempts for rules in self.by_error.values() if rules is not None)
        return max(self.attempts, *others, 1)

    @property
    def longest(self) -> float:
        """The longest wait in seconds, unless a handler asks for more."""
        others = (rules.cap for rules in self.by_error.values() if rules is not None)
        return max(self.cap, *others, 0.0)

    def backoff(self, attempt: int, random: Callable[[], float]) -> float:
        """Return the seconds to wait after `attempt` (1-based): up to base times 2^(attempt - 1).

        Full jitter, from a tenth of it upwards.
        """
        ceiling = min(self.cap, self.base * 2.0 ** min(attempt - 1, 62))
        return ceiling * (_FLOOR + (1 - _FLOOR) * random())

    def after(self, attempt: int, error: BaseException, random: Callable[[], float]) -> Verdict:
        """Decide what follows `error` in this attempt. Poison is never tried again."""
        if isinstance(error, CodecError):
            return Park("poison")
        if isinstance(error, Reject):
            return Park("rejected")
        rules = self._for(error)
        if rules is None:
            return Park(f"{type(error).__name__} is never retried")
        if attempt >= rules.attempts:
            return Park("attempts exhausted")
        if isinstance(error, Retry) and error.after is not None:
            return Again(max(error.after.total_seconds(), rules.base * _FLOOR))
        return Again(rules.backoff(attempt, random))

    def _for(self, error: BaseException) -> Retries | None:
        if self.by_error:
            for cls in type(error).__mro__:
                if cls in self.by_error:
                    return self.by_error[cls]
        return self

    def worn_out(self, attempt: int) -> bool:
        """Say whether a delivery comes so late that it is not run any more."""
        return attempt > self.most + CRASH_MARGIN


def combine(rules: Retries, *policies: RetryPolicy | None) -> Retries:
    """Return `rules` with what the policies say instead; the last one speaks last.

    Raises `ConfigurationError` when the base comes out longer than the cap.
    """
    for policy in policies:
        if policy is not None:
            plain = _over(rules, policy)
            given = {
                error: None if other is None else _over(plain, other)
                for error, other in policy.by_error.items()
            }
            rules = attrs.evolve(plain, by_error={**rules.by_error, **given})
    return rules


def _over(rules: Retries, policy: RetryPolicy) -> Retries:
    base, cap = policy.backoff_base, policy.backoff_cap
    found = Retries(
        rules.attempts if policy.attempts is None else policy.attempts,
        rules.base if base is None else base.total_seconds(),
        rules.cap if cap is None else cap.total_seconds(),
    )
    if found.base > found.cap:
        raise ConfigurationError(
            f"the backoff_base of a RetryPolicy ({found.base:g} s) is longer than its backoff_cap "
            f"({found.cap:g} s): give both"
        )
    return found
