"""A node in a process of its own, to be killed, stopped, cut off and started again."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

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
