"""Handlers, checked when registered and compiled once into the call that runs per message."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import attrs

from catga.codecs import WireType
from catga.engine.context import Context
from catga.errors import ConfigurationError
from catga.model.message import Request
from catga.model.qos import QualityOfService
from catga.policy import Retries
from catga.spi import Middleware, Start

__all__ = [
    "Call",
    "Handler",
    "OnPublish",
    "check_handlers",
    "compile_call",
    "compile_publish",
    "inspect_function",
]

OnPublish = Callable[[Any, dict[str, str]], Awaitable[None]]


@attrs.frozen(eq=False)
class Call:
    """A handler with its middleware around it, as it is called per message."""

    invoke: Callable[..., Coroutine[Any, Any, Any]]
    """With the message, and with its context when it is wanted."""
    wants_context: bool
    answers: bool
    """Whether what it returns is sent back."""


@attrs.frozen(eq=False)
class Handler:
    """One handler of one type in one group. Two may look alike: each is itself."""

    wire: WireType
    function: Callable[..., Coroutine[Any, Any, Any]]
    wants_context: bool
    group: str
    """Empty for a broadcast listener."""
    qos: QualityOfService
    concurrency: int
    start: Start = Start.BEGINNING
    retries: Retries = attrs.field(factory=Retries)
    timeout: float | None = None
    """Seconds that one attempt may take."""

    @property
    def is_request(self) -> bool:
        """Whether what it returns is sent back."""
        return issubclass(self.wire.cls, Request)

    @property
    def name(self) -> str:
        """Shown in errors and logs."""
        return getattr(self.function, "__qualname__", repr(self.function))


def inspect_function(function: Callable[..., Any]) -> bool:
    """Say whether `function` wants the context as a second parameter.

    Raises `ConfigurationError` for what cannot be a handler.
    """
    name = getattr(function, "__qualname__", repr(function))
    call = getattr(type(function), "__call__", None)  # noqa: B004 - an object whose call is async
    if not (inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)):
        raise ConfigurationError(
            f"the handler {name} must be `async def`; run blocking work inside it with "
            "`await asyncio.to_thread(...)`"
        )
    positional = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}
    ]
    required = [parameter for parameter in positional if parameter.default is parameter.empty]
    if not positional or len(required) > 2:
        raise ConfigurationError(
            f"the handler {name} must take the message, and may take the context second"
        )
    return len(positional) > 1


def check_handlers(handlers: Sequence[Handler]) -> None:
    """Raise `ConfigurationError` when two handlers would get in each other's way."""
    seen: dict[tuple[str, str], Handler] = {}
    requests: dict[str, Handler] = {}
    for handler in handlers:
        type_ = handler.wire.name
        if handler.is_request:
            other = requests.setdefault(type_, handler)
            if other is not handler:
                raise ConfigurationError(
                    f"the request {type_} has two handlers, {other.name} and {handler.name}: "
                    "a request has one answer"
                )
        if not handler.group:
            if handler.qos is QualityOfService.EXACTLY_ONCE:
                raise ConfigurationError(
                    f"{handler.name} listens to {type_} without a group: exactly once is kept "
                    "per group, so name one"
                )
            continue
        other = seen.setdefault((handler.group, type_), handler)
        if other is not handler:
            raise ConfigurationError(
                f"{other.name} and {handler.name} both handle {type_} in the group "
                f"{handler.group!r}: a retry of one would run the other again, so give one of "
                "them a group of its own"
            )


def compile_call(handler: Handler, middleware: Sequence[Middleware]) -> Call:
    """Return one coroutine function for the handler with its middleware around it."""
    call = Call(handler.function, handler.wants_context, handler.is_request)
    for layer in reversed(middleware):
        if type(layer).on_handle is not Middleware.on_handle:
            call = _wrap(layer, call)
    return call


def _wrap(layer: Middleware, inner: Call) -> Call:
    further = inner.invoke

    def call(message: Any, context: Context) -> Coroutine[Any, Any, Any]:
        with_context = (message, context) if inner.wants_context else (message,)
        return layer.on_handle(message, context, lambda: further(*with_context))

    return Call(call, wants_context=True, answers=inner.answers)


def compile_publish(middleware: Sequence[Middleware]) -> OnPublish | None:
    """Return what runs before a message is encoded, or None when no middleware looks."""
    layers = tuple(
        layer.on_publish
        for layer in middleware
        if type(layer).on_publish is not Middleware.on_publish
    )
    if not layers:
        return None

    async def look(message: Any, headers: dict[str, str]) -> None:
        for layer in layers:
            await layer(message, headers)

    return look
