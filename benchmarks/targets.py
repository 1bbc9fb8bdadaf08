"""The figures to reach, as a table: ratios within one run, at 128 bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.report import Entry

__all__ = ["TARGETS", "Target", "ratio_of"]

RATE = "messages_per_second"
P50, P99 = (f"latency_p{each}_microseconds" for each in (50, 99))


@dataclass(frozen=True)
class Target:
    """Catga's median by a peer's has to be at least, or at most, so much."""

    path: str
    peer: str
    bound: float
    against: str
    """The peer, in words."""
    metric: str = RATE

    @property
    def at_most(self) -> bool:
        """Whether less is better."""
        return self.metric != RATE

    def reached(self, ratio: float) -> bool:
        """Say whether a ratio is good enough."""
        return ratio <= self.bound if self.at_most else ratio >= self.bound

    @property
    def words(self) -> str:
        """The bound, as the table shows it."""
        return f"{'≤' if self.at_most else '≥'} {self.bound:g}"


RAW, BEST, FAST = "raw_documented", "raw_best", "faststream"

TARGETS = (
    Target("nats qos0 consume", FAST, 8, "FastStream"),
    Target("nats qos0 consume", RAW, 0.8, "the callback subscription"),
    Target("nats qos0 publish", FAST, 3.5, "FastStream"),
    Target("nats qos0 publish", RAW, 0.55, "prebuilt bytes"),
    Target("nats qos0 publish (same encoding)", BEST, 0.85, "raw and the same encoding"),
    Target("nats qos1 publish", FAST, 3, "FastStream, 256 gathered"),
    Target("nats qos1 publish", RAW, 1.4, "`publish_async` with the same id"),
    Target("nats qos1 consume", FAST, 7, "FastStream"),
    Target("nats qos1 consume (batch handler)", FAST, 2, "FastStream's batch handler"),
    Target("nats qos1 consume", RAW, 2, "`fetch(500)` and ack"),
    Target("nats qos2 consume", RAW, 1.7, "`fetch(500)` and gathered `ack_sync`"),
    Target("redis qos0 publish", FAST, 3, "FastStream's pipeline"),
    Target("redis qos0 publish", RAW, 1.5, "pipeline(256)"),
    Target("redis qos0 consume", FAST, 15, "FastStream"),
    Target("redis qos0 consume", RAW, 1.0, "`listen()`"),
    Target("redis qos1 publish", FAST, 4, "FastStream's pipeline"),
    Target("redis qos1 publish", RAW, 1.5, "pipeline(256)"),
    Target("redis qos1 consume", FAST, 30, "FastStream"),
    Target("redis qos1 consume (batch handler)", FAST, 2, "FastStream's batch handler"),
    Target("redis qos1 consume", RAW, 1.1, "XREADGROUP 100 and multi-id XACK"),
    Target("redis qos2 consume", RAW, 0.9, "raw Lua by 100"),
    Target("memory qos1 exchange", FAST, 40, "TestBroker"),
    Target("memory qos1 exchange", RAW, 0.3, "`asyncio.Queue`"),
    Target("nats qos1 publish by 256 callers", FAST, 3, "FastStream"),
    Target("nats qos1 publish by 256 callers", RAW, 2, "`publish_async`, each awaited"),
    Target("redis qos1 publish by 256 callers", FAST, 3, "FastStream"),
    Target("redis qos1 publish by 256 callers", RAW, 10, "redis-py's pool"),
    *(
        Target(f"{broker} qos{qos} latency at 200/s", peer, bound, words, metric)
        for broker in ("nats", "redis")
        for qos in (0, 1)
        for peer, words, bounds in ((FAST, "FastStream", (1, 1)), (RAW, "raw", (1.3, 1.5)))
        for metric, bound in zip((P50, P99), bounds, strict=True)
    ),
)


def ratio_of(target: Target, entries: Sequence[Entry]) -> float | None:
    """Return what was measured; None when it was not."""
    for each in entries:
        if (each["path"], each["metric"], each["size_bytes"]) == (target.path, target.metric, 128):
            return each["ratios"][target.peer]
    return None
