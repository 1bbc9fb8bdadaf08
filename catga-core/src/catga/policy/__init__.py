"""Floor 3: pure decisions. No clock, no loop, no transport."""

from catga.policy.horizons import broken_horizons
from catga.policy.retry import Park, Retry, RetryPolicy, Verdict

__all__ = ["Park", "Retry", "RetryPolicy", "Verdict", "broken_horizons"]
