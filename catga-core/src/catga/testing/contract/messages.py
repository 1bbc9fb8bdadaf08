"""The messages of the laws: one type for each quality, and a handler that keeps books."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs

from catga.bus import Bus
from catga.engine.context import Context
from catga.model.message import Event, Request
from catga.model.qos import QualityOfService

__all__ = ["Asked", "Charged", "Heard", "Noted", "Ordered", "Paid", "Refunded", "Ticked", "keep"]


@attrs.frozen
class Ticked(Event):
    """At most once."""

    qos = QualityOfService.AT_MOST_ONCE
    number: int


@attrs.frozen
class Ordered(Event):
    """At least once."""

    qos = QualityOfService.AT_LEAST_ONCE
    number: int


@attrs.frozen
class Noted(Event):
    """At least once, of any length."""

    qos = QualityOfService.AT_LEAST_ONCE
    text: str


@attrs.frozen
class Charged(Event):
    """Exactly once."""

    qos = QualityOfService.EXACTLY_ONCE
    number: int


@attrs.frozen
class Refunded(Event):
    """Exactly once, and what follows from something else."""

    qos = QualityOfService.EXACTLY_ONCE
    number: int


@attrs.frozen
class Asked(Request[int]):
    """A question at most once."""

    qos = QualityOfService.AT_MOST_ONCE
    number: int


@attrs.frozen
class Paid(Request[int]):
    """A question exactly once."""

    qos = QualityOfService.EXACTLY_ONCE
    number: int


@attrs.define
class Heard:
    """What one handler was given: the number of each message, with the attempt."""

    calls: list[tuple[int, int]] = attrs.field(factory=list)

    @property
    def numbers(self) -> list[int]:
        """The numbers, sorted."""
        return sorted(number for number, _ in self.calls)


def keep(
    bus: Bus,
    cls: type,
    act: Callable[[int, int], Awaitable[None]] | None = None,
    **options: Any,
) -> Heard:
    """Handle `cls` by noting it and then awaiting `act(number, attempt)`."""
    heard = Heard()

    @bus.handle(cls, **options)
    async def handle(message: Any, context: Context) -> None:
        heard.calls.append((message.number, context.attempt))
        if act is not None:
            await act(message.number, context.attempt)

    return heard
