"""Carry real GitHub webhooks over Catga, at three qualities of service, and check every one.

    python examples/github_relay.py                                  # in memory
    python examples/github_relay.py --broker nats --workers 3 --kill-one
    python examples/github_relay.py --broker redis --workers 3 --restart-server
    python examples/github_relay.py --url redis://127.0.0.1:6379 --json

Each GitHub event is a message type of its own with the quality of service it deserves. GitHub
delivers webhooks again under the same delivery id: so every delivery at QoS 1 and 2 is published
twice, with that id as the message id. Handlers run in worker processes of one group (in memory: in
tasks); what they handled stands in files they append to, and only these files are believed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import attrs
from relay.events import Delivery, body_digest, event_type, quality_of, read_deliveries
from relay.verdict import Expected, QualityRow, judge, read_books
from relay.worker import KILL_PLACES, KillPoint, Worker, run_as_process
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from catga import Bus, CatgaError
from catga.settings import parse_url
from catga.testing import ServerProcess, remove_namespace

HERE = Path(__file__).resolve().parent
DATA = HERE / "data" / "github-webhooks.jsonl"
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


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Carry real GitHub webhooks over Catga and check every one of them."
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", default="inmemory://", help="the broker (default: %(default)s)")
    where.add_argument(
        "--broker", choices=("nats", "redis"), help="start a private, persistent server of its own"
    )
    parser.add_argument(
        "--server-binary", type=Path, metavar="FILE", help="the server that --broker starts"
    )
    parser.add_argument("--input", type=Path, default=DATA, metavar="FILE", help="JSON lines")
    parser.add_argument(
        "--repeat", type=_count, default=1, metavar="N", help="each line as N deliveries"
    )
    parser.add_argument("--workers", type=_count, default=2, metavar="N", help="processes")
    parser.add_argument(
        "--kill-one", action="store_true", help="one worker ends itself by SIGKILL on the way"
    )
    parser.add_argument(
        "--restart-server",
        action="store_true",
        help="the server of --broker is killed (SIGKILL) on the way, and started again on its "
        "data. QoS 0 may lose what is sent or under way while it is away, so that `ok` asks only "
        "that nothing of it comes twice; QoS 1 and 2 must lose nothing, and QoS 2 may repeat at "
        "most what was in a handler's hands while the server was away (at risk), as its completion "
        "could not be recorded then",
    )
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    for hidden in ("--worker", "--folder", "--namespace", "--kill-at"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kill_one and not options.broker and options.url.startswith("inmemory:"):
        parser.error("--kill-one kills a worker process, and in memory there is none")
    if options.restart_server and not options.broker and options.worker is None:
        parser.error("--restart-server kills a server of its own: add --broker")
    return options


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


@attrs.define
class Relay:
    """One run: publish everything, wait until it is handled, compare."""

    url: str
    deliveries: list[Delivery]
    workers: int
    kill: bool
    folder: Path
    console: Console
    server: ServerProcess | None = None
    """To be killed on the way, and started again."""
    namespace: str = attrs.field(factory=lambda: f"relay-{secrets.token_hex(4)}")
    duplicates: list[int] = attrs.field(factory=lambda: [0, 0, 0])
    processes: list[asyncio.subprocess.Process] = attrs.field(factory=list)
    restarts: int = 0

    @property
    def in_memory(self) -> bool:
        """Whether the workers are tasks of this process."""
        return self.url.startswith("inmemory:")

    @property
    def disturbed(self) -> bool:
        """Whether anything dies on the way."""
        return self.kill or self.server is not None

    @property
    def events(self) -> list[str]:
        """Every event in the input."""
        return sorted({one.event for one in self.deliveries})

    @property
    def settings(self) -> Mapping[str, object]:
        """What differs from Catga's defaults."""
        return SETTINGS

    async def run(self) -> dict[int, QualityRow]:
        """Carry everything; return the figures."""
        expected = {
            one.id: Expected(int(quality_of(one.event)), body_digest(one.payload))
            for one in self.deliveries
        }
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=self.console) as progress:
            async with self._workers():
                await self._publish(progress)
                await self._wait(expected, progress)
        if not self.in_memory:
            await remove_namespace(self.url, self.namespace)
        return judge(read_books(self.folder, expected), expected, self.duplicates)

    # ---- workers

    @contextlib.asynccontextmanager
    async def _workers(self) -> AsyncIterator[None]:
        async with self._start_tasks() if self.in_memory else self._start_processes():
            await self._until_ready()
            yield

    @contextlib.asynccontextmanager
    async def _start_tasks(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for index in range(self.workers):
                worker = Worker(self.folder, index)
                group.create_task(
                    worker.run(self.url, self.namespace, self.settings, self.events, stop)
                )
            try:
                yield
            finally:
                stop.set()

    @contextlib.asynccontextmanager
    async def _start_processes(self) -> AsyncIterator[None]:
        (self.folder / "events").write_text("\n".join(self.events))
        victim = random.randrange(self.workers) if self.kill else None
        # Early enough that the drawn worker surely comes so far, whatever share it gets.
        calls = max(1, len(self.deliveries) // (4 * self.workers))
        for index in range(self.workers):
            command = [sys.executable, __file__, "--worker", str(index), "--url", self.url]
            command += ["--folder", str(self.folder), "--namespace", self.namespace]
            if index == victim:
                point = KillPoint(random.randint(1, calls), random.choice(KILL_PLACES))
                command += ["--kill-at", f"{point.call}:{point.where}"]
            process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.DEVNULL)
            self.processes.append(process)
        try:
            yield
        finally:
            for process in self.processes:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
            for process in self.processes:
                await process.wait()

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + 30
        while len(list(self.folder.glob("worker-*.ready"))) < self.workers:
            if any(process.returncode is not None for process in self.processes):
                raise RuntimeError("a worker ended before it was ready; see its words above")
            if time.monotonic() > deadline:
                raise RuntimeError("the workers were not ready within 30 s")
            await asyncio.sleep(0.02)

    # ---- publishing

    async def _publish(self, progress: Progress) -> None:
        again = [one for one in self.deliveries if quality_of(one.event) > 0]
        everything = (*self.deliveries, *again)  # GitHub, too, redelivers later
        bar = progress.add_task("publishing", total=len(everything))
        # Among what is new: of repetitions the server would have nothing to lose.
        end = random.randint(len(self.deliveries) // 10, len(self.deliveries) * 9 // 10)
        bus = Bus(
            self.url,
            service="github",
            namespace=self.namespace,
            publishes=[event_type(event) for event in self.events],
            settings=self.settings,
        )
        async with bus, asyncio.TaskGroup() as group:
            for start in range(0, len(everything), CONCURRENT):
                part = everything[start : start + CONCURRENT]
                if self.server is not None and start <= end < start + CONCURRENT:
                    group.create_task(self._restart(self.server, end - start))
                await asyncio.gather(*(self._publish_one(bus, one) for one in part))
                progress.advance(bar, len(part))

    async def _publish_one(self, bus: Bus, one: Delivery) -> None:
        quality = quality_of(one.event)
        try:
            receipt = await bus.publish(one.message(), message_id=one.id)
        except CatgaError:
            if quality > 0 or self.server is None:
                raise
            return  # refused, and nobody will send it again: it counts as lost
        self.duplicates[quality] += receipt.duplicate

    async def _restart(self, server: ServerProcess, turns: int) -> None:
        """Kill the server, some turns of the loop from now, and start it again on its data."""
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        self.restarts += 1

    # ---- waiting

    async def _wait(self, expected: Mapping[str, Expected], progress: Progress) -> None:
        """Wait until all that must be handled is, and then for what might come too much."""
        wanted = {id_ for id_, one in expected.items() if one.quality > 0 or not self.disturbed}
        bar = progress.add_task("handling", total=len(expected))
        changed, lines = time.monotonic(), -1
        while True:
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


def show(console: Console, url: str, rows: Mapping[int, QualityRow], *, ok: bool) -> None:
    """Print the table."""
    table = Table(
        box=SIMPLE,
        pad_edge=False,
        padding=0,
        collapse_padding=True,
        title=f"GitHub webhooks over {url}: {'ok' if ok else 'NOT ok'}",
    )
    for heading in ("QoS", *(field.name.replace("_", " ") for field in attrs.fields(QualityRow))):
        table.add_column(heading, justify="right", no_wrap=True)
    for quality, row in rows.items():
        cells = ("-" if cell is None else str(cell) for cell in attrs.astuple(row))
        table.add_row(str(quality), *cells)
    console.print(table)


def work(options: argparse.Namespace) -> None:
    """Be a worker process."""
    folder = Path(options.folder)
    kill = None
    if options.kill_at:
        call, where = options.kill_at.split(":")
        kill = KillPoint(int(call), where)
    worker = Worker(folder, int(options.worker), kill)
    events = (folder / "events").read_text().split()
    run_as_process(lambda stop: worker.run(options.url, options.namespace, SETTINGS, events, stop))


def private_server(options: argparse.Namespace) -> ServerProcess:
    """Return the private server that was asked for; entering it starts it."""
    if options.broker == "nats":
        from catga_nats.testing import NatsServer  # noqa: PLC0415 - only one of them is needed

        return NatsServer(binary=options.server_binary)
    from catga_redis.testing import RedisServer  # noqa: PLC0415

    return RedisServer(binary=options.server_binary)


def carry(options: argparse.Namespace, console: Console, stack: contextlib.ExitStack) -> bool:
    """Run the relay, print its figures, and say whether every promise was kept."""
    folder = Path(tempfile.mkdtemp(prefix="catga-relay-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    url = options.url
    server = None
    if options.broker:
        server = stack.enter_context(private_server(options))
        url = server.url
    elif url == "inmemory://":
        url = "inmemory://relay"  # one broker for the publisher and all workers
    relay = Relay(
        url=url,
        deliveries=list(read_deliveries(options.input, options.repeat)),
        workers=options.workers,
        kill=options.kill_one,
        folder=folder,
        console=console,
        server=server if options.restart_server else None,
    )
    rows = asyncio.run(relay.run())
    killed = len(list(folder.glob("worker-*.killed")))
    died = (killed, relay.restarts) == (options.kill_one, options.restart_server)
    ok = died and all(row.kept(quality, disturbed=relay.disturbed) for quality, row in rows.items())
    shown = parse_url(url)[0].shown  # never with user and password
    show(console, shown, rows, ok=ok)
    if options.json:
        figures = {str(quality): attrs.asdict(row) for quality, row in rows.items()}
        print(json.dumps({"url": shown, "ok": ok, "qos": figures}))
    return ok


def main() -> int:
    """Be a worker, or run the relay; 0 when every promise was kept."""
    options = arguments()
    if options.worker is not None:
        work(options)
        return 0
    console = Console(stderr=options.json)
    try:
        with contextlib.ExitStack() as stack:
            return 0 if carry(options, console, stack) else 1
    except (CatgaError, OSError, RuntimeError, ValueError) as error:
        console.print(f"[red]error:[/] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
