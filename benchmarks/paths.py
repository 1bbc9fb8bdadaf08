"""What is measured, as a table: each path and who is measured on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["PATHS", "PEERS", "Path"]

PEERS = ("raw_documented", "raw_best", "faststream", "taskiq")
"""The columns of the report beside Catga's own."""


@dataclass(frozen=True)
class Path:
    """One way of a message; `contestants` maps columns to files of `contestants`."""

    broker: str
    """`nats`, `redis`, or `memory`: without a server."""
    qos: int
    action: str
    """`publish`, `consume`, or `exchange`: both in one process."""
    contestants: Mapping[str, str]

    @property
    def name(self) -> str:
        """As the report calls it."""
        return f"{self.broker} qos{self.qos} {self.action}"


def _served(broker: str, qos: int, action: str) -> Path:
    contestants = {
        "catga": "catga_bus",
        "raw_documented": f"{broker}_documented",
        "raw_best": f"{broker}_best",
    }
    # It has no exactly once; with an id of ours its publish over NATS is the same promise.
    if qos < 2 or (broker, action) == ("nats", "publish"):
        contestants["faststream"] = f"faststream_{broker}"
    return Path(broker, qos, action, contestants)


def _in_memory(qos: int) -> Path:
    contestants = {"catga": "catga_bus", "raw_documented": "memory_documented"}
    if qos == 1:
        contestants["faststream"] = "faststream_memory"
    return Path("memory", qos, "exchange", contestants)


PATHS = (
    *(
        _served(broker, qos, action)
        for broker in ("nats", "redis")
        for qos in (0, 1, 2)
        for action in ("publish", "consume")
    ),
    *(_in_memory(qos) for qos in (0, 1, 2)),
)
