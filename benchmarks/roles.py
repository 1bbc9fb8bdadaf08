"""What is the same for every contestant: awaiting each publish or request, alone or side by side.

A contestant brings `sender` and `asker`, which hold a connection open while they are entered.
"""

from __future__ import annotations

import asyncio
import time
from types import ModuleType

from benchmarks.job import Asker, Job, Send, Watch

__all__ = ["ROLES"]


async def one_by_one(contestant: ModuleType, job: Job, watch: Watch) -> None:
    """Publish each message when the one before is confirmed; or as many callers do as the job says.

    At QoS 0 it is over when the server has answered behind all of them.
    """
    async with contestant.sender(job) as (send, settle):
        watch.begin()
        await _spread(send, job)
        await settle()
        watch.end(job.count)


async def paced(contestant: ModuleType, job: Job, watch: Watch) -> None:
    """Publish at the job's rate, and note when each publish began."""
    instants: list[float] = []
    async with contestant.sender(job) as (send, settle):
        watch.begin()
        began = time.perf_counter()
        for number in range(job.count):
            await asyncio.sleep(max(0.0, began + number / job.rate - time.perf_counter()))
            instants.append(time.perf_counter())
            await send(number)
        await settle()
        watch.end(job.count)
    watch.instants = instants


async def request(contestant: ModuleType, job: Job, watch: Watch) -> None:
    """Ask with each message when the one before is answered; or as many callers do."""
    async with contestant.asker(job) as ask:
        watch.begin()
        await _spread(ask, job)
        watch.end(job.count)


async def _spread(call: Send | Asker, job: Job) -> None:
    async def caller(first: int) -> None:
        for number in range(first, job.count, job.callers):
            await call(number)

    if job.callers == 1:
        await caller(0)
        return
    async with asyncio.TaskGroup() as group:
        for first in range(job.callers):
            group.create_task(caller(first))


ROLES = {"one_by_one": one_by_one, "paced": paced, "request": request}
