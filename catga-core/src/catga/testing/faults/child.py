"""A process of one's own: started, listened to, ended, never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from catga.errors import ConfigurationError

__all__ = ["ChildProcess"]

_LINE_SECONDS = 10.0
_LAST_SECONDS = 5.0


class ChildProcess:
    """Runs `sys.executable` with `arguments` (`-c`, …, or `-m`, …) on this process's `sys.path`.

    An async context manager: it starts on entry and is killed on exit when it still runs. Its
    stdout is read line by line with `line`; what it writes to stderr stands in the errors.
    """

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self.lines: list[str] = []
        """What `line` has read so far."""

    @classmethod
    def of(
        cls,
        function: str | Callable[..., Any],
        *arguments: Any,
        die_at: str = "",
        passes: int = 1,
    ) -> Self:
        """Run a module's function, or coroutine function, with arguments that JSON can hold.

        `function` is itself or `"module:function"`. With `die_at` the child kills itself (SIGKILL)
        when it calls `passing(die_at)` for the `passes`-th time. It also ends with this process.

        Raises `ConfigurationError` for a function that has no name in a module.
        """
        if not isinstance(function, str):
            if "<" in function.__qualname__ or "." in function.__qualname__:
                raise ConfigurationError(f"{function.__qualname__} is not at the top of a module")
            function = f"{function.__module__}:{function.__qualname__}"
        return cls(
            "-m",
            "catga.testing.faults",
            function,
            json.dumps(arguments),
            die_at,
            str(passes),
        )

    async def start(self) -> Self:
        """Start it."""
        path = os.pathsep.join(filter(None, sys.path))
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": path},
        )
        return self

    @property
    def running(self) -> asyncio.subprocess.Process:
        """The process. Raises `ConfigurationError` before `start` and after `close`."""
        if self._process is None:
            raise ConfigurationError("the child process was not started")
        return self._process

    @property
    def errors(self) -> str:
        """What it wrote to stderr."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    async def line(self, wanted: str = "", timeout: float = _LINE_SECONDS) -> str:
        """Return the next line of its stdout that begins with `wanted`, without its end.

        Raises `ConfigurationError`, with what it wrote, when it ended before that, or wrote
        nothing like it in `timeout` seconds.
        """
        stdout = self.running.stdout
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while stdout is not None and (raw := await stdout.readline()):
                    self.lines.append(raw.decode(errors="replace").rstrip("\r\n"))
                    if self.lines[-1].startswith(wanted):
                        return self.lines[-1]
        told = "\n".join(self.lines[-20:])
        raise ConfigurationError(f"no line {wanted!r} from the child:\n{told}\n{self.errors}")

    async def wait(self, timeout: float = _LINE_SECONDS) -> int:
        """Return its exit status, or minus the signal that ended it.

        Raises `TimeoutError` when it still runs after `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            # Unread lines would block it. Not `communicate`: from Python 3.12 on it closes stdin
            # first, and the child takes that for the end of its parent.
            stdout = self.running.stdout
            rest = b"" if stdout is None else await stdout.read()
            await self.running.wait()
        self.lines += rest.decode(errors="replace").splitlines()
        return self.running.returncode or 0

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self.running.send_signal(number)

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self.signal(signal.SIGKILL)

    async def close(self) -> None:
        """Kill it if it still runs. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            async with asyncio.timeout(_LAST_SECONDS):
                await process.communicate()
        self._errors.close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
