"""Routers: handlers collected in one module, included by the bus of another."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import timedelta
from enum import Enum
from typing import Any, TypeVar

import attrs

from catga.engine.handling import inspect_function
from catga.errors import ConfigurationError
from catga.ground.durations import duration
from catga.model.retry import RetryPolicy
from catga.model.subject import check_token
from catga.spi import Start

__all__ = ["UNSET", "Registration", "Router", "Unset"]

FunctionT = TypeVar("FunctionT", bound=Callable[..., Coroutine[Any, Any, Any]])


class Unset(Enum):
    """Nothing was given, where None means something."""

    UNSET = "unset"


UNSET = Unset.UNSET


@attrs.frozen(eq=False)
class Registration:
    """A handler as it was declared; the bus fills in what was left open."""

    cls: type
    function: Callable[..., Coroutine[Any, Any, Any]]
    wants_context: bool
    group: str | None
    broadcast: bool
    concurrency: int | None
    start: Start
    retry: RetryPolicy | None
    timeout: timedelta | Unset | None


class Router:
    """Collects handlers; `bus.include(router)` takes them over."""

    def __init__(self) -> None:
        self._registrations: list[Registration] = []
        self._sealed = False

    @property
    def registrations(self) -> tuple[Registration, ...]:
        """What was declared, in order."""
        return tuple(self._registrations)

    def handle(
        self,
        cls: type,
        *,
        group: str | None = None,
        broadcast: bool = False,
        concurrency: int | None = None,
        start: Start | str = Start.BEGINNING,
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | Unset | None = UNSET,
    ) -> Callable[[FunctionT], FunctionT]:
        """Declare the decorated coroutine function as a handler of `cls`.

        It takes the message and, if it has a second parameter, the `Context` of the delivery.
        `group` defaults to the bus's; members of one group share the work, every group sees every
        event. `broadcast=True` listens without a group: at QoS 0 every listener gets each message,
        at QoS 1 each gets what is published while it listens. `concurrency` is how many run at
        once. `start="new"` begins a new group with what comes, not with what is retained.

        `retry` goes before what the message type and the settings say about failed attempts;
        `timeout` (seconds or a `timedelta`) before the setting `handler_timeout`: None lets an
        attempt take as long as its lease is renewed (`lease_limit`).

        Raises `ConfigurationError` for a blocking function, a bad group name, a group together
        with `broadcast`, and a `retry` or `timeout` that is none.
        """
        _check(group, broadcast, concurrency, retry)
        limit = _timeout(timeout)

        def register(function: FunctionT) -> FunctionT:
            self._check_open()
            self._registrations.append(
                Registration(
                    cls=cls,
                    function=function,
                    wants_context=inspect_function(function),
                    group=group,
                    broadcast=broadcast,
                    concurrency=concurrency,
                    start=Start(start),
                    retry=retry,
                    timeout=limit,
                )
            )
            return function

        return register

    def include(self, router: Router) -> None:
        """Take over the handlers of another router, as it has them now."""
        self._check_open()
        self._registrations.extend(router.registrations)

    def _check_open(self) -> None:
        if self._sealed:
            raise ConfigurationError("the bus has started: add handlers before it is entered")


def _check(group: str | None, broadcast: bool, concurrency: int | None, retry: object) -> None:
    if group is not None:
        check_token(group, "group")
        if broadcast:
            raise ConfigurationError("a broadcast listener has no group: give one of the two")
    if concurrency is not None and concurrency < 1:
        raise ConfigurationError("concurrency must be at least 1")
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise ConfigurationError(f"retry must be a RetryPolicy, not {retry!r}")


def _timeout(timeout: timedelta | float | Unset | None) -> timedelta | Unset | None:
    if timeout is None or isinstance(timeout, Unset):
        return timeout
    try:
        limit = duration(timeout)
    except ValueError as error:
        raise ConfigurationError(f"the timeout of a handler {error}") from None
    if limit <= timedelta(0):
        raise ConfigurationError(f"the timeout of a handler must be above 0, not {limit}")
    return limit
