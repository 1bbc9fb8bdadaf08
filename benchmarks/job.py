"""What a contestant is given; only the standard library, as each has an environment of its own."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["CALLERS", "NAME", "Asker", "Job", "Sender", "Watch", "fields", "number_in"]

NAME = "bench"
"""Of the stream, the subject, the channel and the group."""
CALLERS = 256
"""So many wait for an answer at the same time, on the paths that say so."""
FIRST = 1_000_000_000
"""Numbers count from here, so that all are of one length."""

Send = Callable[[int], Awaitable[object]]
Sender = tuple[Send, Callable[[], Awaitable[object]]]
"""What publishes message `number` and returns when that is confirmed; and what returns when the
server has answered behind all of them."""
Asker = Callable[[int], Awaitable[object]]
"""What asks with message `number` and returns with the answer."""


def fields(number: int, size: int) -> dict[str, str | int | bool]:
    """Return message `number`; as compact JSON it is `size` bytes long."""
    return {**_bare(), "number": FIRST + number, "note": "x" * (size - len(_compact(_bare())))}


def number_in(body: bytes) -> int:
    """Return the number of the message in its JSON, without reading the rest."""
    return int(body[10:20]) - FIRST


def _bare() -> dict[str, str | int | bool]:
    return {"number": FIRST, "customer": "customer-42", "paid": True, "note": ""}


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
    callers: int = 1
    """So many publishes or requests are under way at the same time, where each is awaited."""
    rate: float = 0.0
    """Messages per second, where the publisher keeps to a rate; 0: as fast as it can."""
    group: str = NAME
    types: int = 1
    """So many message types, each with a subscription."""
    prefetch: int = 0
    """Deliveries in the consumer at the same time; 0: as the contestant is by default."""
    step: int = 0
    """The time is also taken after every so many messages."""

    def stream_fields(self) -> Iterator[dict[str, str | int | bool]]:
        """Yield every message as a dictionary."""
        first = fields(0, self.size)
        for number in range(FIRST, FIRST + self.count):
            yield {**first, "number": number}

    def all_fields(self) -> list[dict[str, str | int | bool]]:
        """Return every message as a dictionary."""
        return list(self.stream_fields())

    def bodies(self) -> list[bytes]:
        """Return every message as bytes, for a client that moves bytes only."""
        head, tail = _compact(fields(0, self.size)).split(str(FIRST).encode())
        return [b"%b%d%b" % (head, FIRST + number, tail) for number in range(self.count)]


class Watch:
    """Takes the time. A publisher begins and ends it; a consumer's begins with its first message.

    What came with the first call of `add` is not counted, as getting it was not timed. Beside the
    time it takes the processor's: what this process used, in user and in system mode.
    """

    def __init__(self, count: int, *, arrivals: bool = False, step: int = 0) -> None:
        self._count = count
        self._seen = 0
        self._first = 0
        self._began = self._ended = 0.0
        self._cpu_began = self._cpu_ended = 0.0
        self._complete = asyncio.Event()
        self._step = step
        self.instants: list[float] | None = [] if arrivals else None
        """When each message was sent, or came."""
        self.laps: list[tuple[float, float]] = []
        """Time and the processor's after every `step` messages."""
        self.extra: dict[str, Any] = {}
        """What else is known in the end."""

    def ready(self) -> None:
        """Tell the driver that the subscription is confirmed."""
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    def begin(self) -> None:
        """The time runs."""
        self._cpu_began = time.process_time()
        self._began = time.perf_counter()

    def add(self, messages: int = 1) -> None:
        """So many messages more have been handled."""
        if not self._seen:
            self._first = messages
            self.begin()
        self._seen += messages
        if self.instants is not None:
            self.instants.extend([time.perf_counter()] * messages)
        if self._step and self._seen % self._step == 0:
            self.laps.append((time.perf_counter(), time.process_time()))
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
        self._cpu_ended = time.process_time()
        self._seen += published

    def figures(self) -> dict[str, Any]:
        """Return what the driver reads."""
        return {
            "total": self._seen,
            "timed": self._seen - self._first,
            "seconds": self._ended - self._began,
            "cpu": self._cpu_ended - self._cpu_began,
            "instants": self.instants,
            "laps": self.laps,
            **self.extra,
        }
