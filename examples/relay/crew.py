"""The workers together: started, watched, and ended whatever happens."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import attrs
from common import one_line

from catga.spi import end_all
from relay.worker import KILL_PLACES, KillPoint, Orders, Worker

__all__ = ["Crew", "Processes", "Tasks"]

READY_SECONDS = 30.0
END_SECONDS = 20.0
"""A worker that was told to stop may take so long to finish what it has in hand."""


@attrs.define(kw_only=True)
class Crew(ABC):
    """Workers of one group. Entering starts them, leaving ends them."""

    url: str = attrs.field(repr=False)
    namespace: str
    folder: Path
    events: list[str]
    settings: Mapping[str, Any]
    wanted: int
    deliveries: int
    """So many come."""
    kill: bool
    """Whether one of them, a process, is to end itself by SIGKILL on the way."""
    problems: list[str] = attrs.field(factory=list)
    """What went wrong with workers, known once they have ended."""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Start them."""

    @abstractmethod
    async def __aexit__(self, *_: object) -> None:
        """End them, within `END_SECONDS`, and fill `problems`."""

    @abstractmethod
    def ended(self) -> int:
        """Count those that have ended."""

    async def ready(self) -> None:
        """Return once all handle messages. Raises `RuntimeError` when they do not come so far."""
        deadline = time.monotonic() + READY_SECONDS
        while len(list(self.folder.glob("worker-*.ready"))) < self.wanted:
            if self.ended():
                raise RuntimeError("a worker ended before it was ready")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the workers were not ready within {READY_SECONDS:g} s")
            await asyncio.sleep(0.02)


@attrs.define(kw_only=True)
class Tasks(Crew):
    """Workers in this process, for what lives in its memory."""

    _tasks: list[asyncio.Task[None]] = attrs.field(factory=list)
    _stop: asyncio.Event = attrs.field(factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        """Start them."""
        for index in range(self.wanted):
            work = Worker(self.folder, index).run(
                self.url, self.namespace, self.settings, self.events, self._stop
            )
            self._tasks.append(asyncio.create_task(work))
        return self

    async def __aexit__(self, *_: object) -> None:
        """End them."""
        self._stop.set()
        try:
            await asyncio.wait(self._tasks, timeout=END_SECONDS)
        finally:
            await end_all(self._tasks)
        for index, task in enumerate(self._tasks):
            if not task.done() or task.cancelled():
                self.problems.append(f"worker {index} did not end within {END_SECONDS:g} s")
            elif (error := task.exception()) is not None:
                self.problems.append(f"worker {index} failed: {one_line(error)}")

    def ended(self) -> int:
        """Count those that have ended."""
        return sum(task.done() for task in self._tasks)


@attrs.define(kw_only=True)
class Processes(Crew):
    """Workers as processes; each stops when its standard input is closed."""

    _processes: list[asyncio.subprocess.Process] = attrs.field(factory=list)

    async def __aenter__(self) -> Self:
        """Start them."""
        victim = random.randrange(self.wanted) if self.kill else None
        try:
            for index in range(self.wanted):
                await self._start(index, doomed=index == victim)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _start(self, index: int, *, doomed: bool) -> None:
        # Early enough that the drawn worker surely comes so far, whatever share it gets.
        calls = max(1, self.deliveries // (4 * self.wanted))
        point = KillPoint(random.randint(1, calls), random.choice(KILL_PLACES))
        orders = Orders(
            url=self.url,
            namespace=self.namespace,
            folder=str(self.folder),
            index=index,
            events=self.events,
            settings=dict(self.settings),
            kill_at=f"{point.call}:{point.where}" if doomed else None,
        )
        main = str(Path(__file__).parents[1] / "github_relay.py")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, main, "--worker"),
            stdin=asyncio.subprocess.PIPE,
            process_group=0,  # Ctrl-C is the relay's to handle
        )
        self._processes.append(process)
        if process.stdin is not None:
            process.stdin.write(json.dumps(attrs.asdict(orders)).encode() + b"\n")

    async def __aexit__(self, *_: object) -> None:
        """End them."""
        early = {index for index, one in enumerate(self._processes) if one.returncode is not None}
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        ending = [asyncio.create_task(process.wait()) for process in self._processes]
        late: set[int] = set()
        try:
            if ending:
                await asyncio.wait(ending, timeout=END_SECONDS)
        finally:
            for index, process in enumerate(self._processes):
                if process.returncode is None:
                    late.add(index)
                    process.kill()
            if ending:
                await asyncio.wait(ending)  # SIGKILL ends every process
        for index, process in enumerate(self._processes):
            if index in late:
                self.problems.append(f"worker {index} did not end within {END_SECONDS:g} s")
            elif not self._killed(index) and (index in early or process.returncode):
                when = "on the way" if index in early else "when it was to stop"
                status = f"with exit status {process.returncode}"
                self.problems.append(f"worker {index} failed: it ended {when} {status}")

    def _killed(self, index: int) -> bool:
        """Say whether this one has ended itself, as it was told to."""
        return (self.folder / f"worker-{index}.killed").exists()

    def ended(self) -> int:
        """Count those that have ended."""
        return sum(process.returncode is not None for process in self._processes)
