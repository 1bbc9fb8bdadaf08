"""Trying again: what an application says about it, once for all or in the middle of a handler."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType

import attrs

from catga.errors import ConfigurationError
from catga.ground.durations import duration

__all__ = ["Reject", "Retry", "RetryPolicy"]

_MOST_ATTEMPTS = 1000
_LONGEST = timedelta(days=1)


class Retry(Exception):
    """Raised by a handler: not now, try again later.

    It is a failed attempt like any other: after the last one the message becomes a dead letter.
    `after` is a lower bound (seconds or a `timedelta`, at least a tenth of the backoff's base);
    None leaves the time to the policy.
    """

    after: timedelta | None = None  # also of a subclass that does not call our `__init__`

    def __init__(self, after: timedelta | float | None = None) -> None:
        try:
            self.after = None if after is None else max(duration(after), timedelta(0))
        except ValueError as error:
            raise ConfigurationError(f"the `after` of Retry {error}") from None
        super().__init__("again" if self.after is None else f"again after {self.after}")


class Reject(Exception):
    """Raised by a handler: never again. The message becomes a dead letter at once."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


def _maybe(value: timedelta | float | None) -> timedelta | None:
    return None if value is None else duration(value)


def _policies(
    value: Mapping[type[BaseException], RetryPolicy | None],
) -> Mapping[type[BaseException], RetryPolicy | None]:
    return MappingProxyType(dict(value))


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often a failed message is tried, and how long it waits in between.

    What is left None is taken from the next that speaks: a handler's policy goes before the one
    of the message type, that before the settings. Raises `ConfigurationError` for what makes no
    sense.
    """

    attempts: int | None = None
    """After so many failed attempts a message becomes a dead letter; 1 means never again."""
    backoff_base: timedelta | None = attrs.field(default=None, converter=_maybe)
    """Between attempts: a random time up to base x 2^n, but at most `backoff_cap`. A number counts
    as seconds."""
    backoff_cap: timedelta | None = attrs.field(default=None, converter=_maybe)
    by_error: Mapping[type[BaseException], RetryPolicy | None] = attrs.field(
        factory=dict, converter=_policies
    )
    """Other rules for some errors: the class nearest to the error's own wins, None means never
    again. The rules of one error have no `by_error` of their own."""

    def __attrs_post_init__(self) -> None:
        if self.attempts is not None and not (
            type(self.attempts) is int and 1 <= self.attempts <= _MOST_ATTEMPTS
        ):
            raise ConfigurationError(
                f"the attempts of a RetryPolicy must be from 1 to {_MOST_ATTEMPTS}, "
                f"not {self.attempts!r}"
            )
        for name in ("backoff_base", "backoff_cap"):
            value = getattr(self, name)
            if value is not None and not timedelta(milliseconds=1) <= value <= _LONGEST:
                raise ConfigurationError(
                    f"the {name} of a RetryPolicy must lie between 1 ms and a day, not at {value}"
                )
        for error, policy in self.by_error.items():
            if not (isinstance(error, type) and issubclass(error, BaseException)):
                raise ConfigurationError(f"by_error is given by class of error, not by {error!r}")
            if policy is not None and (not isinstance(policy, RetryPolicy) or policy.by_error):
                raise ConfigurationError(
                    f"by_error[{error.__name__}] must be a RetryPolicy without a by_error of its "
                    "own, or None"
                )
