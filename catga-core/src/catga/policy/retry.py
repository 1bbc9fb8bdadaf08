"""What follows a failed attempt: another one after a while, or the dead letters."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from catga.errors import CodecError

__all__ = ["Park", "Retry", "RetryPolicy", "Verdict"]


@attrs.frozen
class Retry:
    """Try again, not before `delay` seconds have passed."""

    delay: float


@attrs.frozen
class Park:
    """Give up: keep it as a dead letter with this cause."""

    cause: str


Verdict = Retry | Park


@attrs.frozen
class RetryPolicy:
    """Exponential backoff with full jitter and a cap, for a bounded number of attempts."""

    attempts: int = 5
    base: float = 0.5
    cap: float = 60.0

    def backoff(self, attempt: int, random: Callable[[], float]) -> float:
        """Return the seconds to wait after `attempt` (1-based): up to base times 2^(attempt - 1).

        Full jitter, from a tenth of it upwards: zero would be a hot loop now and then.
        """
        ceiling = min(self.cap, self.base * 2.0 ** min(attempt - 1, 62))
        return ceiling * (0.1 + 0.9 * random())

    def after(self, attempt: int, error: BaseException, random: Callable[[], float]) -> Verdict:
        """Decide what follows `error` in this attempt. Poison is never tried again."""
        if isinstance(error, CodecError):
            return Park("poison")
        if attempt >= self.attempts:
            return Park("attempts exhausted")
        return Retry(self.backoff(attempt, random))
