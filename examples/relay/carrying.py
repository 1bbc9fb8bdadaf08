"""One run of the relay: publish everything, wait until it is handled, compare."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import attrs
from common import clean_up, one_line
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from catga import Bus, CatgaError
from catga.spi import end_all
from catga.testing import ServerProcess
from relay.crew import Crew, Processes, Tasks
from relay.events import Delivery, body_digest, event_type, quality_of
from relay.verdict import Expected, QualityRow, judge, read_books

__all__ = ["Relay"]

STALLED = 60.0
"""Seconds without any progress after which waiting is pointless."""
CONCURRENT = 128
"""So many publishes wait for their receipts at the same time."""
LEASE = 3.0
"""Short, so that what a killed worker held is taken over soon."""
SETTINGS: Mapping[str, object] = {
    "lease": LEASE,
    "completion_ttl": "1h",
    "retention": "1h",
    "publish_deadline": "60s",
}
"""What differs from Catga's defaults; a publish outlasts the restart of a slow server."""


@attrs.define
class Relay:
    """One run; what is not as it should be stands in `problems` afterwards."""

    url: str = attrs.field(repr=False)
    deliveries: list[Delivery] = attrs.field(repr=False)
    workers: int
    kill: bool
    folder: Path
    console: Console
    server: ServerProcess | None = None
    """To be killed on the way, and started again."""
    lasting: bool = False
    """Whether the broker is somebody's: what was made there is removed in the end."""
    namespace: str = attrs.field(factory=lambda: f"relay-{secrets.token_hex(4)}")
    duplicates: list[int] = attrs.field(factory=lambda: [0, 0, 0])
    problems: list[str] = attrs.field(factory=list)
    restarts: int = 0

    @property
    def disturbed(self) -> bool:
        """Whether anything dies on the way."""
        return self.kill or self.server is not None

    @property
    def events(self) -> list[str]:
        """Every event in the input."""
        return sorted({one.event for one in self.deliveries})

    async def run(self) -> dict[int, QualityRow]:
        """Carry everything; return the figures.

        Raises what connecting raises, and `RuntimeError` when the workers do not start. Cancelled,
        too, it ends the workers and removes its namespace.
        """
        expected = {
            one.id: Expected(int(quality_of(one.event)), body_digest(one.payload))
            for one in self.deliveries
        }
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_exit(self._clean_up)
            bus = await stack.enter_async_context(self._publisher())
            crew = await stack.enter_async_context(self._crew())
            await crew.ready()
            with Progress(*columns, TimeElapsedColumn(), console=self.console) as progress:
                await self._publish(bus, progress)
                if not self.problems:
                    await self._wait(expected, crew, progress)
        self.problems += crew.problems
        books = read_books(self.folder, expected)
        if books.killed != self.kill:
            self.problems.append("the worker that was to die did not come so far")
        if self.restarts != (self.server is not None):
            self.problems.append("the server was not restarted on the way")
        rows = judge(books, expected, self.duplicates)
        for quality, row in rows.items():
            self.problems += row.broken(quality, disturbed=self.disturbed)
        return rows

    def _publisher(self) -> Bus:
        return Bus(
            self.url,
            service="github",
            namespace=self.namespace,
            publishes=[event_type(event) for event in self.events],
            settings=SETTINGS,
        )

    def _crew(self) -> Crew:
        crew = Tasks if self.url.startswith("inmemory:") else Processes
        return crew(
            url=self.url,
            namespace=self.namespace,
            folder=self.folder,
            events=self.events,
            settings=SETTINGS,
            wanted=self.workers,
            deliveries=len(self.deliveries),
            kill=self.kill,
        )

    async def _clean_up(self, _: object, error: BaseException | None, __: object) -> None:
        """Remove the namespace from somebody's broker."""
        if self.lasting:
            await clean_up(self.url, self.namespace, error)

    # ---- publishing

    async def _publish(self, bus: Bus, progress: Progress) -> None:
        again = [one for one in self.deliveries if quality_of(one.event) > 0]
        everything = (*self.deliveries, *again)  # GitHub, too, redelivers later
        bar = progress.add_task("publishing", total=len(everything))
        # Among what is new: of repetitions the server would have nothing to lose.
        end = random.randint(len(self.deliveries) // 10, len(self.deliveries) * 9 // 10)
        restarting: list[asyncio.Task[None]] = []
        try:
            for start in range(0, len(everything), CONCURRENT):
                part = everything[start : start + CONCURRENT]
                if self.server is not None and start <= end < start + CONCURRENT:
                    turns = end - start
                    restarting.append(asyncio.create_task(self._restart(self.server, turns)))
                await asyncio.gather(*(self._publish_one(bus, one) for one in part))
                progress.advance(bar, len(part))
                if self.problems:
                    return
            await asyncio.gather(*restarting)
        finally:
            await end_all(restarting)

    async def _publish_one(self, bus: Bus, one: Delivery) -> None:
        quality = quality_of(one.event)
        try:
            receipt = await bus.publish(one.message(), message_id=one.id)
        except CatgaError as error:
            # At QoS 0 nobody sends it again when the server was away: it counts as lost.
            if (quality > 0 or self.server is None) and not self.problems:
                self.problems.append(f"publishing failed at QoS {quality:d}: {one_line(error)}")
            return
        self.duplicates[quality] += receipt.duplicate

    async def _restart(self, server: ServerProcess, turns: int) -> None:
        """Kill the server, some turns of the loop from now, and start it again on its data."""
        for _ in range(turns):
            await asyncio.sleep(0)
        try:
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        except (CatgaError, OSError) as error:
            self.problems.append(f"the server was not started again: {one_line(error)}")
        else:
            self.restarts += 1

    # ---- waiting

    async def _wait(self, expected: Mapping[str, Expected], crew: Crew, progress: Progress) -> None:
        """Wait until all that must be handled is, and then for what might come too much."""
        wanted = {id_ for id_, one in expected.items() if one.quality > 0 or not self.disturbed}
        bar = progress.add_task("handling", total=len(expected))
        changed, lines = time.monotonic(), -1
        while crew.ended() < self.workers:
            books = read_books(self.folder, expected)
            now, total = time.monotonic(), books.completions.total()
            progress.update(bar, completed=len(books.completions))
            if total != lines:
                changed, lines = now, total
            complete = wanted <= books.completions.keys()
            quiet = 2 * LEASE if self.disturbed else 0.5
            if now - changed > (quiet if complete else STALLED):
                return
            await asyncio.sleep(0.1)
