"""Floor 3: pure decisions. No clock, no loop, no transport."""

from catga.policy.horizons import broken_horizons
from catga.policy.retry import CRASH_MARGIN, Again, Park, Retries, Verdict, combine
from catga.policy.words import exactly_once_words, span

__all__ = [
    "CRASH_MARGIN",
    "Again",
    "Park",
    "Retries",
    "Verdict",
    "broken_horizons",
    "combine",
    "exactly_once_words",
    "span",
]
