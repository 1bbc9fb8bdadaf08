"""`catga bench`: its words and options. The work is loaded when it is asked for."""

from __future__ import annotations

import click

from catga.cli.errors import verbose_option
from catga.cli.numbers import Number

__all__ = ["bench"]

_SHORT = 0.2
_SECONDS = 2.0


@click.command
@click.argument("url")
@click.option(
    "--seconds",
    type=Number(0.01, 600.0),
    default=_SECONDS,
    show_default=True,
    metavar="S",
    help="About how long each figure is measured.",
)
@click.option("--short", is_flag=True, help=f"The same as --seconds {_SHORT}: a first look.")
@click.option(
    "--size",
    type=click.IntRange(40, 1 << 20),
    default=128,
    show_default=True,
    metavar="BYTES",
    help="Of a message's JSON, without its envelope.",
)
@click.option(
    "--qos",
    "qualities",
    type=click.IntRange(0, 2),
    multiple=True,
    metavar="N",
    help="Only this quality of service; may be given several times.",
)
@click.option("--json", "in_json", is_flag=True, help="Write one JSON object.")
@verbose_option
@click.pass_context
def bench(
    context: click.Context,
    *,
    url: str,
    seconds: float,
    short: bool,
    size: int,
    qualities: tuple[int, ...],
    in_json: bool,
) -> None:
    """Measure how fast messages move over the broker at URL.

    Publishing, handling, latency and requests, for each quality of service, from this process and
    one after the other. It works in a namespace of its own and removes it, also after Ctrl-C (a
    second one ends the program at once). It puts load on the broker: not for one that others
    depend on.

    Exit status 1 when something could not be measured, 130 after Ctrl-C.
    """
    # The bus and all transports would slow every other command down.
    from catga.cli.benching import Wanted, measure  # noqa: PLC0415

    wanted = Wanted(
        url=url,
        seconds=_SHORT if short else seconds,
        size=size,
        qualities=tuple(sorted(set(qualities))) or (0, 1, 2),
    )
    context.exit(measure(wanted, in_json=in_json))
