"""`catga verify`: its words and options. The work is loaded when it is asked for."""

from __future__ import annotations

import click

from catga.cli.errors import verbose_option
from catga.cli.numbers import Number

__all__ = ["verify"]

_PROGRAMS = 10


@click.command
@click.argument("url")
@click.option(
    "--time-scale",
    type=Number(0.0, 60.0, min_open=True),
    default=0.5,
    show_default=True,
    metavar="S",
    help="Real seconds for one second of the laws, whose leases last two: a distant broker needs "
    "more time to answer.",
)
@click.option(
    "--family",
    "families",
    multiple=True,
    metavar="NAME",
    help="Only this family of laws; may be given several times.",
)
@click.option(
    "--programs",
    type=click.IntRange(0),
    metavar="N",
    help=f"How many random programs are tried; {_PROGRAMS} unless told otherwise.",
)
@click.option("--json", "in_json", is_flag=True, help="Write one JSON object.")
@click.option(
    "--keep-going/--exit-first",
    " /-x",
    default=True,
    help="Whether to go on when a law is broken; it does.",
)
@verbose_option
@click.pass_context
def verify(
    context: click.Context,
    *,
    url: str,
    time_scale: float,
    families: tuple[str, ...],
    programs: int | None,
    in_json: bool,
    keep_going: bool,
) -> None:
    """Hold the broker at URL to the delivery contract.

    Each law works in a namespace of its own and removes it, also after Ctrl-C (a second one ends
    the program at once). A law that cannot be shown from here is listed with what is missing.

    Exit status 1 when a law is broken, 2 when nothing could be tried or shown, 130 after Ctrl-C.
    """
    # The contract and all it stands on would slow every other command down.
    from catga.cli.verifying import Wanted, hold_to_contract  # noqa: PLC0415

    wanted = Wanted(
        time_scale=time_scale, families=families, programs=programs, keep_going=keep_going
    )
    context.exit(hold_to_contract(url, wanted, in_json=in_json))
