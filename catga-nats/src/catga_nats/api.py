"""The JetStream API over the table of requests: many calls at once, answers as plain data.

Source: docs.nats.io, reference, "NATS JetStream Wire API" (read for nats-server 2.10 to 2.15).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
_PATIENCE = 12.0
"""Seconds in which a server that has just started, or elects a leader, may still be unavailable.

Servers elect within 4 to 9 seconds. Source: nats-server, `server/raft.go`, `minElectionTimeout`,
`maxElectionTimeout`.
"""
_PAUSE = 0.2
_NO_LEADER = 10008


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
        answers = await self._ask(calls, timeout)
        return [_settled(answer, name) for answer, (name, _) in zip(answers, calls, strict=True)]

    async def call(self, calls: Sequence[Call]) -> list[Result]:
        """Do the same, asking again for a while where JetStream is not available now.

        Only for calls that may be done twice: without a leader nobody answers, or the answer of
        one that was done is lost with its leader.
        """
        return await self._patiently(calls, _is_unavailable)

    async def info(self) -> Result:
        """Ask what JetStream the account has; an election is waited for, a refusal is final."""
        (result,) = await self._patiently([("INFO", None)], _is_electing)
        return result

    async def _patiently(
        self, calls: Sequence[Call], passes: Callable[[Result | Missing], bool]
    ) -> list[Result]:
        deadline = self._clock.monotonic() + _PATIENCE
        answers = await self._ask(calls, _TIMEOUT)
        while self._clock.monotonic() < deadline:
            again = [place for place, answer in enumerate(answers) if passes(answer)]
            if not again:
                break
            await self._clock.sleep(_PAUSE)
            fresh = await self._ask([calls[place] for place in again], _TIMEOUT)
            for place, answer in zip(again, fresh, strict=True):
                answers[place] = answer
        return [_settled(answer, name) for answer, (name, _) in zip(answers, calls, strict=True)]

    async def _ask(self, calls: Sequence[Call], timeout: float) -> list[Result | Missing]:
        asks = [
            (f"$JS.API.{name}", b"" if body is None else msgspec.json.encode(body))
            for name, body in calls
        ]
        return [_read(answer) for answer in await self._mux.ask(asks, timeout)]


def _read(answer: Answer) -> Result | Missing:
    if isinstance(answer, Missing):
        return answer
    if answer.headers and answer.headers.get("Status") == "503":
        return ApiError(503, 0, "nobody answers for JetStream")
    data: dict[str, Any] = msgspec.json.decode(answer.data)
    error = data.get("error")
    return msgspec.convert(error, ApiError) if error else data


def _is_unavailable(answer: Result | Missing) -> bool:
    return answer is Missing.TIMEOUT or (isinstance(answer, ApiError) and answer.code == 503)


def _is_electing(answer: Result | Missing) -> bool:
    return answer is Missing.TIMEOUT or (
        isinstance(answer, ApiError) and answer.err_code == _NO_LEADER
    )


def _settled(answer: Result | Missing, name: str) -> Result:
    if isinstance(answer, Missing):
        raise missing_error(answer, f"$JS.API.{name}")
    return answer
