"""`asyncio.Queue`, filled and emptied in one process."""

from __future__ import annotations

import asyncio

from benchmarks.job import Job, Watch


async def exchange(job: Job, watch: Watch) -> None:
    """One task puts, one gets; nothing is encoded."""
    bodies = job.bodies()
    queue: asyncio.Queue[bytes] = asyncio.Queue(maxsize=1000)
    handled = 0

    async def handle(body: bytes) -> None:  # noqa: ARG001
        nonlocal handled
        handled += 1

    async def consume() -> None:
        for _ in range(job.count):
            await handle(await queue.get())

    watch.begin()
    async with asyncio.TaskGroup() as group:
        group.create_task(consume())
        for body in bodies:
            await queue.put(body)
    watch.end(handled)
