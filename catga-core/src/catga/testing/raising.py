"""Expecting an error without a test runner: laws also run where pytest is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

__all__ = ["Raised", "raises"]

ErrorT = TypeVar("ErrorT", bound=BaseException)


class Raised(Generic[ErrorT]):
    """What was raised: `value` is there after the block."""

    value: ErrorT


@contextmanager
def raises(kind: type[ErrorT], *, naming: str = "") -> Iterator[Raised[ErrorT]]:
    """Assert that the block raises an error of this kind, with `naming` in its words."""
    raised = Raised[ErrorT]()
    try:
        yield raised
    except kind as error:
        if naming not in str(error):
            raise AssertionError(f"{error!r} does not name {naming!r}") from error
        raised.value = error
        return
    raise AssertionError(f"no {kind.__name__} was raised")
