"""Private servers for tests and demonstrations: a process, a folder, a free loopback port."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import abstractmethod
from pathlib import Path
from typing import Self

from catga.errors import ConfigurationError
from catga.testing.running import Running

__all__ = ["ServerProcess", "free_port", "named_servers"]


_FIRST, _STRETCH, _STRETCHES = 15_000, 500, 34
"""The ports that are given: the first, how many to a process, and for how many processes."""
_turns = itertools.count(random.randrange(_STRETCH))  # noqa: S311 - no secret


def free_port() -> int:
    """Return a loopback port that nobody listens on right now.

    It lies below the range from which the system gives ports to outgoing connections: one of
    those could otherwise take it before the server does. Nor does another test's server: each
    process goes round a stretch of 500 ports, and those started together have different ones.
    """
    first = _FIRST + os.getpid() % _STRETCHES * _STRETCH
    while True:
        port = first + next(_turns) % _STRETCH
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def named_servers(variable: str) -> dict[str, str | None]:
    """Return the server programs an environment variable names, by version.

    `2.15=/path/a,2.10=/path/b` is `{"2.15": "/path/a", "2.10": "/path/b"}`. Where the variable is
    not set it is `{"installed": None}`: whichever one the `ServerProcess` finds by itself.

    Raises `ConfigurationError` for anything else.
    """
    servers: dict[str, str | None] = {}
    for pair in filter(None, os.environ.get(variable, "").split(",")):
        version, found, path = pair.partition("=")
        if not (found and version and path) or version in servers:
            raise ConfigurationError(f"{variable} must be version=path,version=path, not {pair!r}")
        servers[version] = path
    return servers or {"installed": None}


class ServerProcess(Running):
    """One server that was started here and is ended here, by its process id.

    A context manager. `kill` and `start` again keep the data: the folder lives until `stop`.
    """

    ready_seconds = 30.0
    """How long a start may take."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="catga-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """What a bus connects to."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command line; it must listen on 127.0.0.1 and `port` and keep to `folder`."""

    @abstractmethod
    def ready(self) -> bool:
        """Say whether the server answers now; called until it does."""

    @property
    def pid(self) -> int:
        """The id of the running process. Raises `ConfigurationError` when there is none."""
        if self._process is None:
            raise ConfigurationError("the server is not running")
        return self._process.pid

    def start(self) -> Self:
        """Start (again) on the same folder and port; returns once it answers."""
        command = self.command()
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the command of this class
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        atexit.register(self.stop)
        deadline = time.monotonic() + self.ready_seconds
        while not self.ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                words = self.log()[-2000:]
                self.stop()
                raise ConfigurationError(f"the server {command[0]} did not start:\n{words}")
            time.sleep(0.01)
        return self

    def log(self) -> str:
        """Return what the server wrote."""
        return (self.folder / "server.log").read_text(errors="replace")

    def kill(self) -> None:
        """End it at once (SIGKILL), keeping its data."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop it in mid-work (SIGSTOP); returns once it stands still."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    async def stand_still(self, seconds: float) -> None:
        """Stop it in mid-work for so long, also when cancelled; then let it go on."""
        self.pause()
        try:
            await asyncio.sleep(seconds)
        finally:
            if self._process is not None:  # it may have been ended meanwhile
                self.resume()

    def stop(self) -> None:
        """End it and remove its folder. Idempotent."""
        atexit.unregister(self.stop)
        self._end(signal.SIGTERM)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
