"""What runs beside a test, alone or as several: started and stopped with a block, waited for."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from catga.errors import ConfigurationError

__all__ = ["Running", "wait_until"]

T = TypeVar("T")
_PAUSE = 0.02


class Running(ABC):
    """Runs inside a `with`."""

    @abstractmethod
    def start(self) -> Self:
        """Start; returns once it can be used."""

    @abstractmethod
    def stop(self) -> None:
        """End it and remove what it made. Idempotent."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def wait_until(
    condition: Callable[[], T | None],
    seconds: float,
    failure: Callable[[], str],
    passing: type[Exception] | tuple[type[Exception], ...] = (),
) -> T:
    """Return what `condition` does, once it is true; blocks. A `passing` error means: not yet.

    Raises `ConfigurationError` with the words of `failure` after so many seconds.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found := condition():
                return found
        except passing:
            pass
        if time.monotonic() > deadline:
            raise ConfigurationError(failure())
        time.sleep(_PAUSE)
