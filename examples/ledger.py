"""Payments into a ledger that balances to the cent, while its workers and its server are killed.

    python examples/ledger.py --broker redis
    python examples/ledger.py --broker nats --payments 1000 --workers 4 --json

Each payment is a request at QoS 2. A worker reads both accounts through `context.transaction`,
refuses what would overdraw, and else books it; balances, the payment's own entry, the response and
the completion record are committed in one step. Worker processes get SIGKILL at random, the server
is killed and started again on its data. In the end every payment must be booked exactly as its
requester was told, once, and no cent may be missing. The exit code is 1 unless all of that holds,
and 2 when it could not begin.

`--url` takes a broker that is there already; then its server is left alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import attrs
from common import clean_up, count, one_line, until_input_ends, until_terminated
from rich.console import Console
from rich.table import Table
from rich.text import Text

from catga import Bus, CatgaError, Context, QualityOfService, RemoteError, Request
from catga.settings import parse_url
from catga.spi import EffectKey
from catga.testing import ServerProcess

GROUP = "ledger"
OPENING = 10_000
"""Cents on every account at the beginning."""
ACCOUNTS = 20
PATIENCE = 40.0
"""Seconds a payment may take; asked for longer than any outage here lasts."""
SETTINGS: dict[str, object] = {
    "lease": "1s",
    "attempts": 200,
    "publish_deadline": "60s",
    "concurrency": 8,
}
"""A killed worker's payments are taken over soon, and a kill is no reason to give one up."""


@attrs.frozen
class Pay(Request[str]):
    """Move some cents; the response is `booked` or `refused`."""

    qos = QualityOfService.EXACTLY_ONCE
    number: int
    debit: int
    credit: int
    cents: int


@attrs.define
class Report:
    """What happened, and whether it may have."""

    broker: str
    payments: int
    mode: str = ""
    booked: int = 0
    refused: int = 0
    worker_kills: int = 0
    server_kills: int = 0
    seconds: float = 0.0
    problems: list[str] = attrs.field(factory=list)

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return not self.problems and self.booked + self.refused == self.payments


async def book(pay: Pay, context: Context) -> str:
    """Handle one payment: everything it writes is there once, or not at all."""
    tx = context.transaction
    debit = int(await tx.read(f"account-{pay.debit}") or OPENING)
    credit = int(await tx.read(f"account-{pay.credit}") or OPENING)
    entry = f"payment-{pay.number}"
    earlier = await tx.read(entry) or b""
    answer = "booked" if debit >= pay.cents else "refused"
    if answer == "booked":
        tx.write(f"account-{pay.debit}", b"%d" % (debit - pay.cents))
        tx.write(f"account-{pay.credit}", b"%d" % (credit + pay.cents))
    tx.write(entry, earlier + answer.encode())  # a second time would be seen
    return answer


async def work() -> None:
    """Be a worker process until its standard input ends, or it is killed.

    The first line there is the URL: arguments of a process are there for everybody to read.
    """
    url, namespace = json.loads(sys.stdin.readline())
    stop = until_input_ends()
    bus = Bus(url, service="worker", group=GROUP, namespace=namespace, settings=SETTINGS)
    bus.handle(Pay)(book)
    async with bus:
        await stop.wait()


class Workers:
    """Worker processes: as many as wanted are kept alive, and some are killed now and then."""

    def __init__(self, url: str, namespace: str, wanted: int) -> None:
        self._orders = json.dumps([url, namespace]).encode() + b"\n"
        self._processes = [self._start() for _ in range(wanted)]

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, __file__, "--work"],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            process_group=0,  # Ctrl-C is handled here
        )
        if process.stdin is not None:
            process.stdin.write(self._orders)
        return process

    def replace_dead(self) -> None:
        """Start another one for each that has ended: killed, or without a server to begin with."""
        for place, process in enumerate(self._processes):
            if process.poll() is not None:
                self._processes[place] = self._start()

    def kill_one(self, dice: random.Random) -> None:
        """End one without warning."""
        process = dice.choice(self._processes)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End them all."""
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def disturb(
    workers: Workers,
    server: ServerProcess | None,
    options: argparse.Namespace,
    report: Report,
    dice: random.Random,
) -> None:
    """Kill workers at random, and the server as often as asked for, until cancelled."""
    next_server = time.monotonic() + 2 * options.kill_seconds
    while True:
        await asyncio.sleep(options.kill_seconds * dice.uniform(0.5, 1.5))
        workers.replace_dead()
        due = report.server_kills < options.server_kills and time.monotonic() >= next_server
        if server is not None and due:
            report.server_kills += 1
            server.kill()
            await asyncio.to_thread(server.start)
            next_server = time.monotonic() + 4 * options.kill_seconds
            continue
        if report.worker_kills < options.worker_kills:
            report.worker_kills += 1
            workers.kill_one(dice)
            workers.replace_dead()


async def pay_one(bus: Bus, pay: Pay) -> str:
    """Ask until there is an answer; the same object is the same payment, however often."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return await bus.request(pay, to=GROUP, timeout=max(1.0, until - time.monotonic()))
        except RemoteError:
            raise
        except CatgaError:
            if time.monotonic() >= until:
                raise
            await asyncio.sleep(0.2)


async def run_payments(
    options: argparse.Namespace, url: str, server: ServerProcess | None, report: Report
) -> None:
    """Make all payments while things are being killed, then compare."""
    namespace = f"ledger-{secrets.token_hex(4)}"
    dice = random.Random(options.seed)
    pays = []
    for number in range(options.payments):
        debit, credit = dice.sample(range(ACCOUNTS), 2)
        pays.append(Pay(number, debit, credit, dice.randint(1, 4000)))
    asker = Bus(
        url, service="shop", namespace=namespace, consume=False, publishes=[Pay], settings=SETTINGS
    )
    try:
        async with asker:
            report.mode = repr(asker).partition("running ")[2].rstrip(">")
            workers = Workers(url, namespace, options.workers)
            fate = asyncio.create_task(disturb(workers, server, options, report, dice))
            try:
                answers = await pay_all(asker, pays, report)
            finally:
                fate.cancel()
                await asyncio.wait([fate])
                if not fate.cancelled() and (failure := fate.exception()) is not None:
                    report.problems.append(f"the disturbance failed: {failure!r}")
                await asyncio.to_thread(workers.stop)
            await judge(asker, namespace, pays, answers, report)
    finally:
        await clean_up(url, namespace, sys.exc_info()[1])


async def pay_all(bus: Bus, pays: list[Pay], report: Report) -> dict[int, str]:
    """Make all payments, 32 at a time; return the answers by number."""
    gate = asyncio.Semaphore(32)
    answers: dict[int, str] = {}

    async def one(pay: Pay) -> None:
        async with gate:
            try:
                answers[pay.number] = await pay_one(bus, pay)
            except CatgaError as error:
                report.problems.append(f"payment {pay.number}: {type(error).__name__}: {error}")

    await asyncio.gather(*(one(pay) for pay in pays))
    return answers


async def judge(
    bus: Bus, namespace: str, pays: list[Pay], answers: dict[int, str], report: Report
) -> None:
    """Hold what is stored against what was answered."""
    store = bus.transport.effects
    if store is None:
        report.problems.append("this broker cannot commit effects in one step")
        return
    expected = dict.fromkeys(range(ACCOUNTS), OPENING)
    for pay in pays:
        if answers.get(pay.number) == "booked":
            expected[pay.debit] -= pay.cents
            expected[pay.credit] += pay.cents
    names = [f"account-{n}" for n in expected] + [f"payment-{pay.number}" for pay in pays]
    keys = [EffectKey(namespace, GROUP, "Pay", name) for name in names]
    try:
        values = [found.value for found in await store.read(keys)]
    except CatgaError as error:
        report.problems.append(f"what is stored cannot be read: {one_line(error)}")
        return
    balances = [OPENING if value is None else int(value) for value in values[:ACCOUNTS]]
    for account, balance in enumerate(balances):
        if balance != expected[account]:
            report.problems.append(f"account {account}: {balance}, expected {expected[account]}")
    if sum(balances) != ACCOUNTS * OPENING or min(balances) < 0:
        report.problems.append(f"the ledger does not balance: {sum(balances)}, {min(balances)}")
    for pay, value in zip(pays, values[ACCOUNTS:], strict=True):
        if value is None or value.decode() != answers.get(pay.number):
            told = answers.get(pay.number, "nothing")
            report.problems.append(f"payment {pay.number}: stored {value!r}, answered {told}")
    counts = Counter(answers.values())
    report.booked, report.refused = counts["booked"], counts["refused"]


@contextlib.contextmanager
def broker(options: argparse.Namespace) -> Iterator[tuple[str, ServerProcess | None]]:
    """Yield the URL, and the private server if one was asked for."""
    if options.url:
        yield options.url, None
        return
    server: ServerProcess
    if options.broker == "nats":
        from catga_nats.testing import NatsServer  # noqa: PLC0415 - only one of them is needed

        server = NatsServer()
    else:
        from catga_redis.testing import RedisServer  # noqa: PLC0415

        server = RedisServer()
    with server:
        yield server.url, server


def show(report: Report, *, as_json: bool) -> None:
    """Print the report."""
    facts = {**attrs.asdict(report), "ok": report.ok}
    if as_json:
        print(json.dumps(facts))
        return
    table = Table(title=f"Ledger over {report.broker}: {'ok' if report.ok else 'NOT ok'}")
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in facts.items():
        if name not in {"problems", "ok", "broker"}:
            table.add_row(name.replace("_", " "), Text(str(value)))
    console = Console()
    console.print(table)
    for problem in report.problems[:20]:
        console.print(problem, style="red", markup=False)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--broker", choices=("redis", "nats"), default="redis")
    parser.add_argument("--url", help="a broker that is there already, instead of a private one")
    parser.add_argument("--payments", type=count, default=300)
    parser.add_argument("--workers", type=count, default=3)
    parser.add_argument("--worker-kills", type=int, default=8, help="at most so many")
    parser.add_argument("--server-kills", type=int, default=2, help="at most so many")
    parser.add_argument("--kill-seconds", type=float, default=0.7, help="between two kills, about")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if (options.url or "").startswith("inmemory:"):
        parser.error("in memory there are no worker processes to be killed: use redis or nats")
    return options


def main() -> int:
    """Run it; return the exit code."""
    if sys.argv[1:] == ["--work"]:
        asyncio.run(work())
        return 0
    options = arguments()
    began = time.monotonic()
    try:
        report = Report(
            parse_url(options.url)[0].shown if options.url else options.broker, options.payments
        )
        with broker(options) as (url, server):
            asyncio.run(until_terminated(run_payments(options, url, server, report)))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    except (CatgaError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    report.seconds = round(time.monotonic() - began, 1)
    show(report, as_json=options.json)
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
