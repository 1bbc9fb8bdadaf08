"""One turn of one contestant: a server of its own, and the figures of its processes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from benchmarks.job import CALLERS, Job
from benchmarks.paths import Path
from benchmarks.processes import FOREIGN, Failed, Team
from catga.testing import ServerProcess
from catga_nats.testing import NatsServer
from catga_redis.testing import RedisServer

__all__ = ["CPU", "LATENCY", "RATE", "Failed", "Figures", "Laboratory"]

RATE = "messages_per_second"
CPU = "cpu_microseconds_per_message"
"""Of the measured process, in user and system mode: it moves less than the clock on the wall."""
LATENCY = "latency_p{}_microseconds"
PERCENTILES = (50, 75, 90, 95, 99)
PACE = 200.0
"""Messages per second where latency is measured."""

Figures = dict[str, float]
"""By metric."""

# Who is slower than his publisher is measured, not cut off: no limit for what waits at the server.
NATS_CONFIG = "max_pending: 1GB"
# From 2.15 on a stream takes 1 000 consumers where neither it nor the server says otherwise.
NATS_LIMITS = "limits { default_max_consumers: 10000 }"
REDIS_OPTIONS = ("--client-output-buffer-limit", "pubsub 0 0 0")


@dataclasses.dataclass(frozen=True)
class Laboratory:
    """Where it is measured: an interpreter for each environment, and how long is too long."""

    environments: dict[str, str] = dataclasses.field(default_factory=dict)
    """Interpreters by the names of peers that have environments of their own; who has none here is
    left out."""
    deadline: float = 60.0
    """Seconds for one role of one contestant."""

    def contestants(self, path: Path) -> list[str]:
        """Return those who can be measured on `path` here."""
        return [name for name, module in path.contestants.items() if self._is_here(module)]

    def _is_here(self, module: str) -> bool:
        foreign = [name for name in FOREIGN if module.startswith(name)]
        return all(name in self.environments for name in foreign)

    def team(self) -> Team:
        """Return the processes for one path, none of them started yet."""
        return Team(self.environments, self.deadline)

    def turn(self, team: Team, path: Path, contestant: str, size: int, count: int) -> Figures:
        """Measure one contestant once. Raises `Failed`."""
        module, qos = path.contestants[contestant], path.quality(contestant)
        callers = CALLERS if path.concurrent else 1
        with server(path.broker) as url:
            job = Job(url, qos, size, count, callers, PACE if path.role == "paced" else 0.0)
            try:
                figures = self._play(team, path, module, job)
            except Failed:
                team.dismiss(module)
                raise
        if figures["total"] != count:
            raise Failed(f"{module}: {figures['total']} of {count} messages in {path.name}")
        if "latencies" in figures:
            return _percentiles(figures["latencies"])
        if figures["timed"] <= 0 or figures["seconds"] <= 0:
            raise Failed(f"{module}: {count} messages are too few to be timed in {path.name}")
        return {
            RATE: figures["timed"] / figures["seconds"],
            CPU: figures["cpu"] / figures["timed"] * 1e6,
        }

    def _play(self, team: Team, path: Path, module: str, job: Job) -> dict[str, Any]:
        first = team.child(module, "first")
        if job.qos and path.broker != "memory":
            first.ask("prepare", job)
            first.figures()
        if path.role == "consume" and job.qos:  # stored: all of it waits there for the consumer
            first.ask("publish", job)
            first.figures()
            second = team.child(module, "second")
            second.ask("consume", job)
            second.ready()
            return second.figures()
        if path.role not in {"consume", "paced", "request"}:
            first.ask(path.role, job)
            return first.figures()
        second = team.child(module, "second")
        second.ask("answer" if path.role == "request" else "consume", job)
        second.ready()
        first.ask("publish" if path.role == "consume" else path.role, job)
        asked, heard = first.figures(), second.figures()
        if path.role != "paced":
            return heard if path.role == "consume" else asked
        pairs = zip(asked["instants"], heard["instants"], strict=False)
        return {"total": heard["total"], "latencies": [came - sent for sent, came in pairs]}


def _percentiles(latencies: list[float]) -> Figures:
    ordered = sorted(latencies)
    last = len(ordered) - 1
    return {LATENCY.format(each): ordered[round(last * each / 100)] * 1e6 for each in PERCENTILES}


@contextlib.contextmanager
def server(broker: str) -> Iterator[str]:
    """Run a broker for one turn; yields where it is."""
    if broker == "memory":
        yield "inmemory://bench"
        return
    process: ServerProcess
    if broker == "nats":
        process = NatsServer(config=NATS_CONFIG, jetstream_config=NATS_LIMITS)
    else:
        process = RedisServer(options=REDIS_OPTIONS)
    try:
        yield process.start().url
    finally:
        process.kill()  # nothing in it is of use any more
        process.stop()
