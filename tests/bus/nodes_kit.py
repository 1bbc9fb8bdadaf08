"""A node in a process of its own, to be killed, stopped, cut off and started again; and a program
at a terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
from typing import Any, Self

from catga import Bus, Node
from catga.testing import passing


async def be_a_node(url: str, namespace: str, name: str, settings: dict[str, Any]) -> None:
    """Be a node until SIGTERM; say `here` when it is one, and after SIGUSR1 whom it sees."""
    stop, look = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        stop.set()
        look.set()

    loop.add_signal_handler(signal.SIGTERM, end)
    loop.add_signal_handler(signal.SIGUSR1, look.set)
    node = Node(id=name, address=f"{name}:80")
    bus = Bus(url, service="tests", namespace=namespace, node=node, settings=settings)
    async with bus:
        passing("here")
        while not stop.is_set():
            await look.wait()
            look.clear()
            seen = [f"{each.id}@{each.started:%H%M%S%f}" for each in await bus.discovery.nodes()]
            passing(" ".join(("sees", *seen)))
    passing("left")


class Terminal:
    """Runs a program as if somebody sat there."""

    def __init__(self, *words: str) -> None:
        self._words = words
        self._shown = ""
        self._more = asyncio.Event()
        self._screen, self._inside = pty.openpty()

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._screen, self._read)
        self._process = await asyncio.create_subprocess_exec(
            *self._words,
            stdin=self._inside,
            stdout=self._inside,
            stderr=self._inside,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "40"},
        )
        return self

    def _read(self) -> None:
        self._shown += os.read(self._screen, 65_536).decode(errors="replace")
        self._more.set()

    async def shows(self, words: str, seconds: float = 40.0) -> None:
        """Return once it has shown these words, after those that were waited for before."""
        try:
            async with asyncio.timeout(seconds):
                while words not in self._shown:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(f"no {words!r} in {self._shown[-3000:]}") from None
        self._shown = self._shown.partition(words)[2]

    async def end(self) -> int:
        """Press Ctrl-C; return the exit status."""
        self._process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            return await self._process.wait()

    async def __aexit__(self, *details: object) -> None:
        asyncio.get_running_loop().remove_reader(self._screen)
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        os.close(self._screen)
        os.close(self._inside)
