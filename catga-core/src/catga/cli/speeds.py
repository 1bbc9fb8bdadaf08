"""What `catga bench` measures: each path, with buses of its own in one namespace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import attrs

from catga.bus import Bus
from catga.model.message import Event, Request
from catga.model.qos import QualityOfService

__all__ = ["Bench", "Speed", "exchange", "latency", "one_by_one", "request", "stored"]

_TRIAL = 200
"""Messages that tell how many a figure takes."""
_MOST = 500_000
_CHUNK = 1000
"""So many are under way where nothing waits for a slow listener."""
_PACE = 200.0
_PATIENCE = 60.0
"""Seconds, beyond what was asked for, until messages count as lost."""


@attrs.frozen
class Speed:
    """One figure; None where it does not apply."""

    path: str
    qos: int
    messages: int
    per_second: float | None = None
    cpu_us: float | None = None
    """Of this process, in user and system mode, for each message."""
    p50_us: float | None = None
    p99_us: float | None = None


@attrs.frozen
class _Sample0(Event):
    qos = QualityOfService.AT_MOST_ONCE
    number: int
    note: str


@attrs.frozen
class _Sample1(Event):
    qos = QualityOfService.AT_LEAST_ONCE
    number: int
    note: str


@attrs.frozen
class _Sample2(Event):
    qos = QualityOfService.EXACTLY_ONCE
    number: int
    note: str


@attrs.frozen
class _Question(Request[int]):
    qos = QualityOfService.AT_MOST_ONCE
    number: int
    note: str


_KINDS: tuple[Any, ...] = (_Sample0, _Sample1, _Sample2)


@attrs.frozen(kw_only=True)
class Bench:
    """Where is measured, and how much."""

    url: str = attrs.field(repr=False)
    namespace: str
    seconds: float
    size: int
    inside: bool
    """Whether the transport lives in this process."""

    def bus(self, *, consume: bool = True, service: str = "bench") -> Bus:
        """Return a bus that is not running yet."""
        return Bus(self.url, service=service, namespace=self.namespace, consume=consume)

    def messages(self, kind: Any, count: int) -> Iterator[Any]:
        """Yield new messages of the size that was asked for."""
        # {"number":1000000000,"note":""} around the note
        note = "x" * max(0, self.size - 32)
        return (kind(number, note) for number in range(1_000_000_000, 1_000_000_000 + count))

    def enough(self, count: int, seconds: float) -> int:
        """Return how many messages a figure takes, after a trial of so many in so long."""
        return max(_TRIAL, min(_MOST, int(count / max(seconds, 1e-6) * self.seconds)))

    def patience(self) -> asyncio.Timeout:
        """Bound one measurement: a message that is lost never comes."""
        return asyncio.timeout(self.seconds * 4 + _PATIENCE)


class _Handled:
    """Counts the calls of a handler, and notes when the first one was."""

    def __init__(self) -> None:
        self.count = 0
        self.began = (0.0, 0.0)
        self._wanted = 0
        self._reached = asyncio.Event()

    def add(self) -> None:
        if not self.count:
            self.began = _now()
        self.count += 1
        if self.count >= self._wanted:
            self._reached.set()

    async def until(self, count: int) -> None:
        self._wanted = count
        if self.count < count:
            self._reached.clear()
            await self._reached.wait()


def _listen(bus: Bus, kind: Any) -> _Handled:
    handled = _Handled()

    async def handle(sample: Event) -> None:  # noqa: ARG001 - only that it came counts
        handled.add()

    bus.handle(kind)(handle)
    return handled


def _speed(path: str, qos: int, count: int, began: tuple[float, float]) -> Speed:
    seconds, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    return Speed(path, qos, count, count / max(seconds, 1e-9), cpu / count * 1e6)


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


async def _publish(bus: Bus, bench: Bench, kind: Any, count: int) -> None:
    """Publish many. Raises what kept the first one of them back."""
    summary = await bus.publish_many(bench.messages(kind, count))
    for _, failure in summary.failures:
        raise failure


async def exchange(bench: Bench, qos: int) -> list[Speed]:
    """Publish and handle at the same time, in this process."""
    kind = _KINDS[qos]
    bus = bench.bus()
    handled = _listen(bus, kind)

    async def move(count: int) -> None:
        there = handled.count
        for start in range(0, count, _CHUNK):
            part = min(_CHUNK, count - start)
            await _publish(bus, bench, kind, part)
            await handled.until(there + start + part)

    async with bench.patience(), bus:
        began = _now()
        await move(_TRIAL)
        count = bench.enough(_TRIAL, time.perf_counter() - began[0])
        began = _now()
        await move(count)
        return [_speed("publish and handle", qos, count, began)]


async def stored(bench: Bench, qos: int) -> list[Speed]:
    """Publish into the broker with nobody listening; then handle all that waits there."""
    kind = _KINDS[qos]
    async with bench.patience(), bench.bus(consume=False) as publisher:
        began = _now()
        await _publish(publisher, bench, kind, _TRIAL)
        count = bench.enough(_TRIAL, time.perf_counter() - began[0])
        began = _now()
        await _publish(publisher, bench, kind, count)
        published = _speed("publish many", qos, count, began)
    bus = bench.bus()
    handled = _listen(bus, kind)
    total = count + _TRIAL
    async with bench.patience(), bus:
        await handled.until(total)
        while sum(each.get("ack", 0) for each in bus.counts().values()) < total:  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # no event tells of it: the books do
        return [published, _speed("consume", qos, total, handled.began)]


async def one_by_one(bench: Bench, qos: int) -> list[Speed]:
    """Publish each message when the one before is confirmed."""
    kind = _KINDS[qos]
    async with bench.patience(), bench.bus(consume=False) as bus:
        count, began = 0, _now()
        while time.perf_counter() - began[0] < bench.seconds or not count:
            for message in bench.messages(kind, 10):
                await bus.publish(message)
            count += 10
        return [_speed("publish one by one", qos, count, began)]


async def latency(bench: Bench, qos: int) -> list[Speed]:
    """Publish 200 messages a second; note how long each takes from there into its handler."""
    kind = attrs.make_class(
        f"Timed{qos}", {}, bases=(_KINDS[qos],), frozen=True, class_body={"qos": _KINDS[qos].qos}
    )
    bus = bench.bus()
    came: dict[int, float] = {}
    handled = _Handled()

    async def handle(sample: Any) -> None:
        came[sample.number] = time.perf_counter()
        handled.add()

    bus.handle(kind)(handle)
    sent: dict[int, float] = {}
    count = max(20, int(bench.seconds * _PACE))
    async with bench.patience(), bus:
        began = time.perf_counter()
        for index, message in enumerate(bench.messages(kind, count)):
            await asyncio.sleep(max(0.0, began + index / _PACE - time.perf_counter()))
            sent[message.number] = time.perf_counter()
            await bus.publish(message)
        await handled.until(count)
    times = sorted(came[number] - sent[number] for number in sent)
    p50, p99 = (times[round((count - 1) * part)] * 1e6 for part in (0.5, 0.99))
    return [Speed("latency at 200 per second", qos, count, p50_us=p50, p99_us=p99)]


async def request(bench: Bench, qos: int) -> list[Speed]:
    """Ask a question when the one before is answered, in this process."""
    bus = bench.bus()

    async def answer(question: _Question) -> int:
        return question.number

    bus.handle(_Question)(answer)
    async with bench.patience(), bus:
        count, began = 0, _now()
        while time.perf_counter() - began[0] < bench.seconds or not count:
            for question in bench.messages(_Question, 10):
                await bus.request(question)
            count += 10
        return [_speed("request one by one", qos, count, began)]
