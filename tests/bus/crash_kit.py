"""A consumer that runs in a process of its own, to be killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bus.bus_kit import QUICK, Once
from catga import Bus
from catga.spi import Start
from catga.testing import passing


async def consume(url: str, namespace: str, effects: str) -> None:
    """Handle until killed: one line in the file `effects` for each message."""
    settings = {**QUICK, "lease": 1, "concurrency": 1}
    bus = Bus(url, service="tests", namespace=namespace, settings=settings)

    @bus.handle(Once, start=Start.BEGINNING)
    async def handle(message: Once) -> None:
        passing("inside")
        with Path(effects).open("a") as file:  # noqa: ASYNC230 - it must be there when we die
            file.write(f"{message.number}\n")
        passing("after-effect")

    async with bus:
        await asyncio.get_running_loop().create_future()
