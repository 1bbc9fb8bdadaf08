"""Floor 3: pure decisions. No clock, no loop, no transport."""

from catga.policy.retry import Park, Retry, RetryPolicy, Verdict

__all__ = ["Park", "Retry", "RetryPolicy", "Verdict"]
