"""What is measured, as a table: each path and who is measured on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["BROKERS", "PATHS", "PEERS", "Path"]

PEERS = ("raw_documented", "raw_best", "faststream", "taskiq")
"""The columns of the report beside Catga's own."""
BROKERS = ("nats", "redis")


@dataclass(frozen=True)
class Path:
    """One way of a message; `contestants` maps names to files of `contestants`.

    Those who are called like a column stand in the path's own entry, the others in entries beside
    it, out of the same rounds.
    """

    broker: str
    """`nats`, `redis`, or `memory`: without a server."""
    qos: int
    action: str
    """As the report calls it."""
    role: str
    """Of the measured process."""
    contestants: Mapping[str, str]
    concurrent: bool = False
    """Whether many callers wait at the same time."""
    beside: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Further entries, by what is added to the name: contestants by column."""
    qualities: Mapping[str, int] = field(default_factory=dict)
    """Of contestants that differ in nothing else; each has an entry of its own."""

    @property
    def name(self) -> str:
        """As the report calls it."""
        return f"{self.broker} {self.action}" if self.qualities else self.called(self.qos)

    @property
    def awaited(self) -> bool:
        """Whether one message at a time is under way."""
        return not self.concurrent and self.role in {"one_by_one", "request", "end_to_end"}

    def called(self, qos: int) -> str:
        """Return the name of an entry at a quality."""
        return f"{self.broker} qos{qos} {self.action}"

    def quality(self, contestant: str) -> int:
        """Return the quality at which a contestant is measured."""
        return self.qualities.get(contestant, self.qos)


def _everybody(broker: str) -> dict[str, str]:
    return {
        "catga": "catga_bus",
        "raw_documented": f"{broker}_documented",
        "raw_best": f"{broker}_best",
        "faststream": f"faststream_{broker}",
        "taskiq": f"taskiq_{broker}",
    }


def _without(contestants: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: module for name, module in contestants.items() if name not in names}


def _publish(broker: str, qos: int) -> list[Path]:
    everybody = _everybody(broker)
    if qos == 2 and broker == "redis":  # nothing there stores one id once
        everybody = _without(everybody, "faststream", "taskiq")
    alone = _without(everybody, "raw_best")
    many, beside = dict(everybody), {}
    if (broker, qos) == ("nats", 0):
        many["raw_encoded"] = "nats_encoded"
        beside = {"same encoding": {"raw_best": "raw_encoded"}}
    callers = everybody if qos == 1 else alone
    return [
        Path(broker, qos, "publish", "publish", many, beside=beside),
        Path(broker, qos, "publish one by one", "one_by_one", alone),
        Path(broker, qos, "publish by 256 callers", "one_by_one", callers, concurrent=True),
    ]


def _consume(broker: str, qos: int) -> Path:
    everybody = _everybody(broker)
    if qos == 2:  # they have no exactly once
        return Path(broker, qos, "consume", "consume", _without(everybody, "faststream", "taskiq"))
    if qos == 0:
        return Path(broker, qos, "consume", "consume", everybody)
    everybody["faststream_batch"] = f"faststream_{broker}_batch"
    beside = {"batch handler": {"faststream": "faststream_batch"}}
    return Path(broker, qos, "consume", "consume", everybody, beside=beside)


def _latency(broker: str, qos: int) -> Path:
    # Consuming at its best is for throughput: it is the documented way that answers at once.
    contestants = _without(_everybody(broker), "raw_best")
    if qos == 2:
        contestants = _without(contestants, "faststream", "taskiq")
    return Path(broker, qos, "latency at 200/s", "paced", contestants)


def _request(broker: str) -> list[Path]:
    # Taskiq has none: results go through a store that the caller polls.
    contestants = _without(_everybody(broker), "taskiq", "raw_best")
    return [
        Path(broker, 0, "request one by one", "request", contestants),
        Path(broker, 0, "request by 256 callers", "request", contestants, concurrent=True),
    ]


def _end_to_end(broker: str) -> Path:
    names = {f"qos{qos}": qos for qos in range(3)}
    contestants = dict.fromkeys(names, "catga_bus")
    return Path(broker, 0, "end to end one by one", "end_to_end", contestants, qualities=names)


def _in_memory(qos: int) -> Path:
    contestants = {"catga": "catga_bus", "raw_documented": "memory_documented"}
    if qos == 1:
        contestants |= {"faststream": "faststream_memory", "taskiq": "taskiq_memory"}
    return Path("memory", qos, "exchange", "exchange", contestants)


PATHS = (
    *(path for broker in BROKERS for qos in range(3) for path in _publish(broker, qos)),
    *(_consume(broker, qos) for broker in BROKERS for qos in range(3)),
    *(path for broker in BROKERS for path in _request(broker)),
    *(_end_to_end(broker) for broker in (*BROKERS, "memory")),
    *(_in_memory(qos) for qos in range(3)),
    *(_latency(broker, qos) for broker in BROKERS for qos in range(3)),
)
