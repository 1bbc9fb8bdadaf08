"""Catga, where something grows: much waits, much is subscribed to, much is remembered."""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from pathlib import Path as File

import attrs

from benchmarks.contestants.catga_bus import TYPES
from benchmarks.job import Job, Watch
from catga import Bus, Event, QualityOfService

__all__ = ["many", "part", "seed"]

FIELDS = {"number": int, "customer": str, "paid": bool, "note": str}


async def seed(job: Job, watch: Watch) -> None:
    """Publish all; none is kept here."""
    kind = TYPES[job.qos]
    async with Bus(job.url, service="bench", consume=False, publishes=[kind]) as bus:
        watch.begin()
        summary = await bus.publish_many(
            kind(int(each["number"]), "customer-42", paid=True, note=str(each["note"]))
            for each in job.stream_fields()
        )
        watch.end(summary.accepted)


async def part(job: Job, watch: Watch) -> None:
    """Handle as many as the job says, of what waits; the rest is given back."""
    settings = {"prefetch": job.prefetch} if job.prefetch else {}
    bus = Bus(job.url, service="bench", group=job.group, settings=settings)

    async def handle(order: Event) -> None:  # noqa: ARG001
        watch.add()

    bus.handle(TYPES[job.qos])(handle)
    async with bus:
        await watch.complete()
        watch.end()
        watch.extra["peak_rss_mebibytes"] = _peak()


async def many(job: Job, watch: Watch) -> None:
    """Subscribe to many types, and publish the messages to one after the other."""
    kinds = [
        attrs.make_class(
            f"Order{number}n{job.types}",
            {name: attrs.field(type=kind) for name, kind in FIELDS.items()},
            bases=(Event,),
            frozen=True,
            class_body={"qos": QualityOfService.AT_LEAST_ONCE},
        )
        for number in range(job.types)
    ]
    bus = Bus(job.url, service="bench", group=job.group)

    async def handle(order: Event) -> None:  # noqa: ARG001
        watch.add()

    for kind in kinds:
        bus.handle(kind)(handle)
    began = time.perf_counter()
    async with bus:
        watch.extra["start_seconds"] = time.perf_counter() - began
        messages = [
            kinds[number % job.types](**each) for number, each in enumerate(job.stream_fields())
        ]
        watch.begin()
        publishing = asyncio.create_task(bus.publish_many(messages))
        await watch.complete()
        await publishing
        watch.end()
        watch.extra["peak_rss_mebibytes"] = _peak()


def _peak() -> float:
    """Return the most memory this process has had so far, in MiB."""
    status = File("/proc/self/status")
    if status.exists():  # the figure of `getrusage` starts with the parent's
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
