"""The JetStream API over the table of requests: many calls at once, answers as plain data.

Source: docs.nats.io, reference, "NATS JetStream Wire API" (read for nats-server 2.10 to 2.15).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from catga.spi import Clock
from catga_nats.errors import ApiError, missing_error
from catga_nats.mux import Answer, Missing, Mux

__all__ = ["Call", "JetStreamApi", "Result"]

Call: TypeAlias = tuple[str, Any]
"""The subject without its prefix, and what becomes the JSON body (None: an empty one)."""
Result: TypeAlias = dict[str, Any] | ApiError

_TIMEOUT = 5.0
_PATIENCE = 8.0
"""Seconds in which a server that has just started, or elects a leader, may still be unavailable."""
_PAUSE = 0.2


class JetStreamApi:
    """Calls of `$JS.API`."""

    def __init__(self, mux: Mux, clock: Clock) -> None:
        self._mux = mux
        self._clock = clock

    async def try_once(self, calls: Sequence[Call], timeout: float = _TIMEOUT) -> list[Result]:
        """Return the results in the order of the calls.

        Raises `ConnectionLost` when one is not answered, `AuthenticationError` when one is not
        permitted.
        """
        asks = [
            (f"$JS.API.{name}", b"" if body is None else msgspec.json.encode(body))
            for name, body in calls
        ]
        answers = await self._mux.ask(asks, timeout)
        return [_read(answer, name) for answer, (name, _) in zip(answers, asks, strict=True)]

    async def call(self, calls: Sequence[Call]) -> list[Result]:
        """Do the same, asking again for a while where JetStream is not available now."""
        results = await self.try_once(calls)
        deadline = self._clock.monotonic() + _PATIENCE
        while self._clock.monotonic() < deadline:
            again = [
                place
                for place, result in enumerate(results)
                if isinstance(result, ApiError) and result.code == 503
            ]
            if not again:
                break
            await self._clock.sleep(_PAUSE)
            fresh = await self.try_once([calls[place] for place in again])
            for place, result in zip(again, fresh, strict=True):
                results[place] = result
        return results


def _read(answer: Answer, name: str) -> Result:
    if isinstance(answer, Missing):
        raise missing_error(answer, name)
    if answer.headers and answer.headers.get("Status") == "503":
        return ApiError(503, 0, "nobody answers for JetStream")
    data: dict[str, Any] = msgspec.json.decode(answer.data)
    error = data.get("error")
    return msgspec.convert(error, ApiError) if error else data
