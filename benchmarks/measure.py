"""One measurement: a server of its own, and the contestant in processes of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path as File
from typing import IO, Self

from benchmarks.job import Job
from benchmarks.paths import Path
from catga.testing import ServerProcess
from catga_nats.testing import NatsServer
from catga_redis.testing import RedisServer

__all__ = ["Failed", "Laboratory"]

ROOT = File(__file__).parent.parent
# Who is slower than his publisher is measured, not cut off: no limit for what waits at the server.
NATS_CONFIG = "max_pending: 1GB"
REDIS_OPTIONS = ("--client-output-buffer-limit", "pubsub 0 0 0")


class Failed(Exception):
    """A contestant ended with an error, lost messages, or took too long."""


class Child:
    """A contestant's process in a role; leaving the context ends it."""

    def __init__(self, python: str, module: str, role: str, job: Job, deadline: float) -> None:
        self._what = f"{module} {role}"
        self._ends = time.monotonic() + deadline
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        words = [python, "-m", "benchmarks.child", module, role]
        self._process = subprocess.Popen(
            [*words, json.dumps(dataclasses.asdict(job))],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            # Ctrl-C is the driver's to handle: it ends its children.
            start_new_session=True,
        )

    def line(self) -> str:
        """Return the next line it prints. Raises `Failed` with its last words."""
        output = self._process.stdout
        if output is None:
            raise Failed(f"{self._what}: no output")
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            if not selector.select(max(0.0, self._ends - time.monotonic())):
                raise Failed(f"{self._what} took too long, or messages were lost\n{self._said()}")
        line = output.readline().decode()
        if not line:
            raise Failed(f"{self._what} ended early\n{self._said()}")
        return line

    def figures(self) -> dict[str, float]:
        """Return what it measured."""
        figures: dict[str, float] = json.loads(self.line())
        return figures

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-1500:].decode(errors="replace").strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._errors.close()
        if self._process.stdout is not None:
            self._process.stdout.close()


@dataclasses.dataclass(frozen=True)
class Laboratory:
    """Where it is measured: an interpreter for each environment, and how long is too long."""

    faststream: str | None = None
    """The interpreter of FastStream's environment; None leaves FastStream out."""
    deadline: float = 120.0
    """Seconds for one role of one contestant."""

    def contestants(self, path: Path) -> list[str]:
        """Return the columns of `path` that can be measured here."""
        return [each for each in path.contestants if each != "faststream" or self.faststream]

    def rate(self, path: Path, contestant: str, size: int, count: int) -> float:
        """Return messages per second. Raises `Failed`."""
        module = path.contestants[contestant]
        with self._server(path) as url:
            figures = self._measure(path, module, Job(url, path.qos, size, count))
        if figures["total"] != count:
            raise Failed(f"{module}: {figures['total']} of {count} messages in {path.name}")
        if figures["timed"] <= 0 or figures["seconds"] <= 0:
            raise Failed(f"{module}: {count} messages are too few to be timed in {path.name}")
        return figures["timed"] / figures["seconds"]

    def _measure(self, path: Path, module: str, job: Job) -> dict[str, float]:
        if path.qos and path.broker != "memory":
            self._play(module, "prepare", job)
        if path.action != "consume":
            return self._play(module, path.action, job)
        if path.qos:  # stored: all of it waits there for the consumer
            self._play(module, "publish", job)
            return self._play(module, "consume", job)
        with self._child(module, "consume", job) as consumer:
            consumer.line()
            self._play(module, "publish", job)
            return consumer.figures()

    def _play(self, module: str, role: str, job: Job) -> dict[str, float]:
        with self._child(module, role, job) as child:
            if role == "consume":
                child.line()
            return child.figures()

    def _child(self, module: str, role: str, job: Job) -> Child:
        own = module.startswith("faststream") and self.faststream
        return Child(own or sys.executable, module, role, job, self.deadline)

    @contextlib.contextmanager
    def _server(self, path: Path) -> Iterator[str]:
        if path.broker == "memory":
            yield "inmemory://bench"
            return
        server: ServerProcess
        if path.broker == "nats":
            server = NatsServer(config=NATS_CONFIG)
        else:
            server = RedisServer(options=REDIS_OPTIONS)
        try:
            with server:
                yield server.url
        finally:
            server.stop()
