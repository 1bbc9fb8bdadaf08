"""What children of the fault laws run."""

from __future__ import annotations

import asyncio
import threading

from catga.testing.faults import passing


def count(rounds: int) -> None:
    for _ in range(rounds):
        passing("before")
        passing("after")


async def count_in_a_loop(rounds: int) -> None:
    for _ in range(rounds):
        passing("before")
        await asyncio.sleep(0)
        passing("after")


def wait_for_ever() -> None:
    passing("waiting")
    threading.Event().wait()
