"""The processes of contestants: each plays one role after the other, until the path is measured."""

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
from pathlib import Path as File
from typing import IO, Any, Self

from benchmarks.job import Job

__all__ = ["ROOT", "Child", "Failed", "Team"]

ROOT = File(__file__).parent.parent
FOREIGN = ("faststream", "taskiq")
"""Contestants whose names begin so have environments of their own."""


class Failed(Exception):
    """A contestant ended with an error, lost messages, or took too long."""


class Child:
    """One process of one contestant; leaving the context ends it."""

    def __init__(self, python: str, module: str, deadline: float) -> None:
        self._module = self._what = module
        self._seconds = deadline
        self._ends = 0.0
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.child", module],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            # Ctrl-C is the driver's to handle: it ends its children.
            start_new_session=True,
        )

    def ask(self, role: str, job: Job) -> None:
        """Let it begin with a role. Raises `Failed` when it has ended."""
        self._what = f"{self._module} {role}"
        self._ends = time.monotonic() + self._seconds
        words = json.dumps({"role": role, "job": dataclasses.asdict(job)})
        if self._process.stdin is None:
            raise Failed(f"{self._what}: no input")
        try:
            self._process.stdin.write(words.encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise Failed(f"{self._what} ended early\n{self._said()}") from error

    def ready(self) -> None:
        """Wait until it says that it is. Raises `Failed`."""
        if (line := self._line()) != "ready\n":
            raise Failed(f"{self._what} is not ready: {line}")

    def figures(self) -> dict[str, Any]:
        """Return what it measured. Raises `Failed`."""
        figures: dict[str, Any] = json.loads(self._line())
        return figures

    def _line(self) -> str:
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
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class Team:
    """The processes of one path, started when they are first needed; leaving it ends them."""

    def __init__(self, environments: dict[str, str], deadline: float) -> None:
        self._environments = environments
        self._deadline = deadline
        self._children: dict[tuple[str, str], Child] = {}

    def child(self, module: str, side: str) -> Child:
        """Return the process of a contestant that publishes or consumes."""
        key = (module, side)
        if key not in self._children:
            self._children[key] = Child(self._python(module), module, self._deadline)
        return self._children[key]

    def _python(self, module: str) -> str:
        for name in FOREIGN:
            if module.startswith(name):
                return self._environments[name]
        return sys.executable

    def dismiss(self, module: str) -> None:
        """End the processes of one contestant."""
        for key in [key for key in self._children if key[0] == module]:
            self._children.pop(key).__exit__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for module, _side in list(self._children):
            self.dismiss(module)
