"""What may stand around a handler (middleware) and what may only watch (instrument)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from catga.model.outcome import PublishResult

__all__ = ["CallNext", "Instrument", "Middleware"]

CallNext: TypeAlias = Callable[[], Awaitable[Any]]


class Middleware:
    """Wraps handling and publishing; override one or both. May alter, may refuse by raising.

    A method that is not overridden costs nothing: it is not called.
    """

    async def on_handle(self, message: Any, context: Any, call_next: CallNext) -> Any:
        """Run around one handler call; return what the handler returned (or something else)."""
        del message, context
        return await call_next()

    async def on_publish(self, message: Any, headers: dict[str, str]) -> None:
        """Look at a message before it is encoded; `headers` may be changed. Raise to refuse."""


class Instrument:
    """Observes; override what is of interest. One that raises is switched off and logged once.

    `context` is the handler's context of that delivery.
    """

    def published(self, message_id: str, subject: str, result: PublishResult) -> None:
        """A publish came to its end."""

    def started(self, context: Any) -> None:
        """A handler is about to run."""

    def finished(self, context: Any, error: BaseException | None) -> None:
        """A handler ended, with this error or without one."""

    def settled(self, context: Any, outcome: str) -> None:
        """A delivery is off our hands: `ack`, `nack`, `dead-letter`, `lost`, `unknown`."""
