"""What a contestant is given; only the standard library, as each has an environment of its own."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass

__all__ = ["Job", "Watch", "fields"]

NAME = "bench"
"""Of the stream, the subject, the channel and the group."""


def fields(number: int, size: int) -> dict[str, str | int | bool]:
    """Return message `number`; as compact JSON it is `size` bytes long."""
    message: dict[str, str | int | bool] = {
        "number": 1_000_000_000 + number,
        "customer": "customer-42",
        "paid": True,
        "note": "",
    }
    message["note"] = "x" * (size - len(_compact(message)))
    return message


def _compact(message: dict[str, str | int | bool]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Job:
    """One measurement of one contestant."""

    url: str
    qos: int
    size: int
    """Of a message's JSON, in bytes."""
    count: int

    def all_fields(self) -> list[dict[str, str | int | bool]]:
        """Return every message as a dictionary."""
        return [fields(number, self.size) for number in range(self.count)]

    def bodies(self) -> list[bytes]:
        """Return every message as bytes, for a client that moves bytes only."""
        return [_compact(message) for message in self.all_fields()]


class Watch:
    """Takes the time. A publisher begins and ends it; a consumer's begins with its first message.

    What came with the first call of `add` is not counted, as getting it was not timed.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._seen = 0
        self._first = 0
        self._began = self._ended = 0.0
        self._complete = asyncio.Event()

    def ready(self) -> None:
        """Tell the driver that the subscription is confirmed."""
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    def begin(self) -> None:
        """The time runs."""
        self._began = time.perf_counter()

    def add(self, messages: int = 1) -> None:
        """So many messages more have been handled."""
        if not self._seen:
            self._first = messages
            self.begin()
        self._seen += messages
        if self._seen >= self._count:
            self._complete.set()

    @property
    def missing(self) -> int:
        """So many messages are still to come."""
        return self._count - self._seen

    async def complete(self) -> None:
        """Wait until as many messages have been handled as there are."""
        await self._complete.wait()

    def end(self, published: int = 0) -> None:
        """Everything is handled and settled, or so many are published and confirmed."""
        self._ended = time.perf_counter()
        self._seen += published

    def figures(self) -> dict[str, float]:
        """Return what the driver reads."""
        return {
            "total": self._seen,
            "timed": self._seen - self._first,
            "seconds": self._ended - self._began,
        }
