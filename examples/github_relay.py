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
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
from common import count, one_line, until_terminated
from relay.carrying import Relay
from relay.events import read_deliveries
from relay.verdict import QualityRow
from relay.worker import run_as_process
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from catga import CatgaError
from catga.settings import parse_url
from catga.testing import ServerProcess

HERE = Path(__file__).resolve().parent
DATA = HERE / "data" / "github-webhooks.jsonl"


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
        "--repeat", type=count, default=1, metavar="N", help="each line as N deliveries"
    )
    parser.add_argument("--workers", type=count, default=2, metavar="N", help="processes")
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
    options = parser.parse_args()
    if options.kill_one and not options.broker and options.url.startswith("inmemory:"):
        parser.error("--kill-one kills a worker process, and in memory there is none")
    if options.restart_server and not options.broker:
        parser.error("--restart-server kills a server of its own: add --broker")
    return options


def show(
    console: Console, url: str, rows: Mapping[int, QualityRow], problems: Sequence[str]
) -> None:
    """Print the table, and in a line each what is not as it should be."""
    table = Table(
        box=SIMPLE,
        pad_edge=False,
        padding=0,
        collapse_padding=True,
        title=f"GitHub webhooks over {url}: {'NOT ok' if problems else 'ok'}",
    )
    for heading in ("QoS", *(field.name.replace("_", " ") for field in attrs.fields(QualityRow))):
        table.add_column(heading, justify="right", no_wrap=True)
    for quality, row in rows.items():
        cells = ("-" if cell is None else str(cell) for cell in attrs.astuple(row))
        table.add_row(str(quality), *cells)
    console.print(table)
    for problem in problems:
        console.print(problem, style="red", markup=False, highlight=False, soft_wrap=True)


def private_server(options: argparse.Namespace) -> ServerProcess:
    """Return the private server that was asked for; entering it starts it."""
    if options.broker == "nats":
        from catga_nats.testing import NatsServer  # noqa: PLC0415 - only one of them is needed

        return NatsServer(binary=options.server_binary)
    from catga_redis.testing import RedisServer  # noqa: PLC0415

    return RedisServer(binary=options.server_binary)


def carry(options: argparse.Namespace, console: Console, stack: contextlib.ExitStack) -> bool:
    """Run the relay, print its figures, and say whether every promise was kept."""
    deliveries = list(read_deliveries(options.input, options.repeat))
    folder = Path(tempfile.mkdtemp(prefix="catga-relay-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    url = options.url
    server = None
    if options.broker:
        server = stack.enter_context(private_server(options))
        url = server.url
    elif url == "inmemory://":
        url = "inmemory://relay"  # one broker for the publisher and all workers
    shown = parse_url(url)[0].shown  # never with user and password
    relay = Relay(
        url=url,
        deliveries=deliveries,
        workers=options.workers,
        kill=options.kill_one,
        folder=folder,
        console=console,
        server=server if options.restart_server else None,
        lasting=server is None and not url.startswith("inmemory:"),
    )
    rows = asyncio.run(until_terminated(relay.run()))
    show(console, shown, rows, relay.problems)
    if options.json:
        figures = {str(quality): attrs.asdict(row) for quality, row in rows.items()}
        print(json.dumps({"url": shown, "ok": not relay.problems, "qos": figures}))
    return not relay.problems


def main() -> int:
    """Be a worker, or run the relay.

    0 when every promise was kept, 1 when one was not, 2 when it could not begin.
    """
    if sys.argv[1:] == ["--worker"]:
        return run_as_process()
    options = arguments()
    console = Console(stderr=options.json)
    try:
        with contextlib.ExitStack() as stack:
            return 0 if carry(options, console, stack) else 1
    except (CatgaError, OSError, RuntimeError, ValueError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM


if __name__ == "__main__":
    raise SystemExit(main())
