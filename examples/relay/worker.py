"""A worker: one member of the group, writing down what it has handled as it happens."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
from common import one_line, until_input_ends

from catga import Bus, CatgaError, Context
from catga.spi import Instrument
from relay.events import GitHubEvent, body_digest, event_type

__all__ = ["KILL_PLACES", "KillPoint", "Orders", "Worker", "run_as_process"]

GROUP = "relay-workers"
KILL_PLACES = ("entering", "inside", "after")


@attrs.frozen
class KillPoint:
    """Where a worker ends itself: at its nth handler call, at one of `KILL_PLACES`."""

    call: int
    where: str


@attrs.frozen
class Orders:
    """What a worker process is told, as a line of JSON on its standard input."""

    url: str = attrs.field(repr=False)
    namespace: str
    folder: str
    index: int
    events: list[str]
    settings: dict[str, Any]
    kill_at: str | None = None


class InFlight(Instrument, logging.Handler):
    """Which handled deliveries are not yet off this worker's hands, by quality.

    What was in hand while the server was away, and was handled, stands in the file `risks`: its
    completion could not be recorded then, so that it may be handled again.
    """

    def __init__(self, risks: Path) -> None:
        logging.Handler.__init__(self, logging.INFO)
        self.contexts: set[Context] = set()
        self._handled: set[Context] = set()
        self._doubtful: set[Context] = set()
        self._away = 0
        """So many connections are gone."""
        self._risks = risks
        log = logging.getLogger("catga")
        log.setLevel(logging.INFO)
        log.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Hear that the connection is gone, or back."""
        words = record.getMessage()
        if words.startswith("disconnected:"):
            self._away += 1
            self._doubtful |= self.contexts
        elif words.startswith("connected:"):
            self._away = max(0, self._away - 1)
        elif record.levelno >= logging.WARNING:
            print(words, file=sys.stderr)

    def started(self, context: Any) -> None:
        """A handler begins."""
        self.contexts.add(context)
        if self._away:
            self._doubtful.add(context)

    def finished(self, context: Any, error: BaseException | None) -> None:
        """A handler has ended."""
        if error is None:
            self._handled.add(context)

    def settled(self, context: Any, outcome: str) -> None:
        """Its delivery is acknowledged, given back or lost."""
        handled, doubtful = context in self._handled, context in self._doubtful
        for contexts in (self.contexts, self._handled, self._doubtful):
            contexts.discard(context)
        if handled and (doubtful or outcome != "ack"):
            with self._risks.open("a") as risks:
                risks.write(f"{context.message_id} {int(context.qos)}\n")

    def by_quality(self) -> Counter[int]:
        """Count them."""
        return Counter(int(context.qos) for context in self.contexts)


class Worker:
    """Handles every event of the group; its journal is the evidence for the verdict."""

    def __init__(self, folder: Path, index: int, kill: KillPoint | None = None) -> None:
        self._folder = folder
        self._index = index
        self._kill = kill
        self._calls = 0
        self._in_flight = InFlight(folder / f"worker-{index}.risks")
        self._journal = os.open(
            folder / f"worker-{index}.journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
        )

    async def run(
        self,
        url: str,
        namespace: str,
        settings: Mapping[str, object],
        events: Iterable[str],
        stop: asyncio.Event,
    ) -> None:
        """Handle deliveries until `stop` is set, then drain."""
        bus = Bus(url, service="relay-worker", group=GROUP, namespace=namespace, settings=settings)
        bus.use(self._in_flight)
        for event in events:
            bus.handle(event_type(event))(self.handle)
        try:
            async with bus:
                (self._folder / f"worker-{self._index}.ready").touch()
                await stop.wait()
        finally:
            os.close(self._journal)

    async def handle(self, event: GitHubEvent, context: Context) -> None:
        """Pretend to work, then write down that this delivery was handled."""
        self._calls += 1
        last = self._kill is not None and self._calls == self._kill.call
        if last:
            self._end("entering")
        await asyncio.sleep(0)
        digest = body_digest(event.payload)
        if last:
            self._end("inside")
        age_us = round((time.time() - context.sent_at.timestamp()) * 1e6)
        if last:
            asyncio.get_running_loop().call_soon(self._end, "after")
        os.write(self._journal, f"{context.message_id} {digest} {age_us}\n".encode())

    def _end(self, where: str) -> None:
        """End this process the hard way, if this is the drawn point."""
        if self._kill is None or self._kill.where != where:
            return
        risk = self._in_flight.by_quality()
        (self._folder / f"worker-{self._index}.killed").write_text(
            " ".join(str(risk[quality]) for quality in (0, 1, 2))
        )
        os.kill(os.getpid(), signal.SIGKILL)


def run_as_process() -> int:
    """Be the worker that the line on standard input asks for; return the exit status.

    It stops when its standard input ends: so it also ends when the relay was killed. The line, and
    no argument, holds the URL: the arguments of a process are there for everybody to read.
    """
    orders = Orders(**json.loads(sys.stdin.readline()))
    kill = None
    if orders.kill_at is not None:
        call, where = orders.kill_at.split(":")
        kill = KillPoint(int(call), where)
    worker = Worker(Path(orders.folder), orders.index, kill)

    async def main() -> None:
        stop = until_input_ends()
        await worker.run(orders.url, orders.namespace, orders.settings, orders.events, stop)

    try:
        asyncio.run(main())
    except CatgaError as error:
        print(f"worker {orders.index}: {one_line(error)}", file=sys.stderr)
        return 1
    return 0
