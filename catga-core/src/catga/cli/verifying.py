"""Holding a broker to the contract, law by law, for `catga verify`."""

from __future__ import annotations

import itertools
import json
import logging
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import attrs
import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from catga.cli.certificate import INTERRUPTED, Certificate, as_json, show, spoken
from catga.cli.errors import CommandFailed, is_verbose
from catga.errors import ConfigurationError
from catga.plugins import Catalog, installed_catalog
from catga.settings import parse_url
from catga.testing.harness import Harness, Law
from catga.testing.verify import (
    EXTRA,
    PROGRAMS,
    SCENARIOS,
    Broker,
    Check,
    Verdict,
    checks_of,
    family_names,
    find,
    harness_for,
    has_extra,
    look_at,
)

__all__ = ["Wanted", "hold_to_contract"]

_PROGRAMS = 10


@attrs.frozen(kw_only=True)
class Wanted:
    """What was asked for on the command line."""

    time_scale: float
    families: tuple[str, ...]
    programs: int | None
    keep_going: bool


def hold_to_contract(url: str, wanted: Wanted, *, in_json: bool) -> int:
    """Try the laws, write the certificate, and return the exit status."""
    if not __debug__:
        raise _CannotVerify("python -O takes away the assertions that the laws are made of")
    catalog = installed_catalog()
    with _quiet(), _interruptible():
        try:
            harness, broker = _reach(url, wanted.time_scale, catalog)
        except KeyboardInterrupt:
            return INTERRUPTED
        checks = _choose(wanted, broker)
        certificate = _begin(url, harness, broker, catalog)
        certificate.planned = len(checks)
        _try_all(harness, checks, certificate, keep_going=wanted.keep_going)
    if in_json:
        click.echo(json.dumps(as_json(certificate), ensure_ascii=False))
    else:
        show(certificate, verbose=is_verbose())
    if certificate.empty:
        raise _CannotVerify("no law was shown: what each one needs is listed")
    return certificate.status


class _CannotVerify(CommandFailed):
    """Nothing could be tried, or shown: not the same as a broken law."""

    exit_code = 2


def _reach(url: str, time_scale: float, catalog: Catalog) -> tuple[Harness, Broker]:
    """Return the harness and what is there; anything that is in the way is one line."""
    try:
        harness = harness_for(url, time_scale, catalog)
        return harness, look_at(harness)
    except Exception as error:
        hide = _discreet(url)
        if is_verbose():
            click.echo(hide("".join(traceback.format_exception(error))), err=True, nl=False)
        words = " ".join(str(error).split()) or type(error).__name__
        # Without its cause, whose traceback is shown as it is.
        raise _CannotVerify(hide(words)) from None


def _choose(wanted: Wanted, broker: Broker) -> list[Check]:
    """Return what is to be tried. What was asked for by name must be there."""
    known, named = family_names(), {*wanted.families}
    for name in wanted.families:
        if name not in known:
            raise click.BadParameter(
                f"{name!r} is none of {', '.join(known)}", None, None, "--family"
            )
    if wanted.programs:
        named.add(PROGRAMS)
    if named & {SCENARIOS, PROGRAMS} and not has_extra():
        raise _CannotVerify(f"{' and '.join(sorted(named & {SCENARIOS, PROGRAMS}))} need {EXTRA}")
    names = named if wanted.families else known
    count = _PROGRAMS if wanted.programs is None else wanted.programs
    checks = checks_of(names, count, broker)
    if not checks:
        raise click.UsageError("there is nothing to try")
    return checks


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the log still unless asked: the laws provoke what it warns of."""
    if is_verbose():
        logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s: %(message)s")
        yield
        return
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C cancel the law under way, and SIGTERM do the same."""
    # Python's own handler is the one that asyncio replaces while a loop runs; a shell that starts
    # the program in the background has switched it off.
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(
            signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT)
        ),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _begin(url: str, harness: Harness, broker: Broker, catalog: Catalog) -> Certificate:
    descriptor = harness.descriptor
    brings = [plugin for plugin in catalog.plugins if descriptor in plugin.transports]
    versions = [f"{plugin.distribution} {plugin.version}" for plugin in brings]
    return Certificate(
        url=parse_url(url)[0].shown,
        transport=descriptor.name,
        distribution=" ".join(versions) or "unknown",
        server="this process" if descriptor.in_process else broker.server,
        time_scale=None if harness.manual_clock else harness.time_scale,
    )


def _try_all(
    harness: Harness, checks: Sequence[Check], certificate: Certificate, *, keep_going: bool
) -> None:
    """Try each law, and fill the certificate in."""
    hide = _discreet(harness.url)
    began = time.perf_counter()
    try:
        with _progress(len(checks)) as tell:
            for check in checks:
                tell(check.law)
                found = find(check, harness)
                found = attrs.evolve(found, reason=hide(found.reason), report=hide(found.report))
                certificate.findings.append(found)
                if found.verdict is Verdict.BROKEN:
                    certificate.stopped = hide(_why_to_stop(harness, keep_going=keep_going))
                if certificate.stopped:
                    break
    except KeyboardInterrupt:
        certificate.interrupted, certificate.stopped = True, "interrupted"
    left = {namespace: hide(reason) for namespace, reason in harness.left_behind.items()}
    certificate.left_behind = left
    certificate.seconds = time.perf_counter() - began


def _why_to_stop(harness: Harness, *, keep_going: bool) -> str:
    """Return why nothing more is tried after a broken law; empty to go on."""
    if not keep_going:
        return "at the first broken law"
    try:
        look_at(harness)
    except Exception as error:
        return f"the broker is gone: {error}"
    return ""


@contextmanager
def _progress(total: int) -> Iterator[Callable[[Law], None]]:
    """Show a bar on standard error, when somebody looks at it; what is yielded moves it on."""
    console = Console(stderr=True)
    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=total)
        done = itertools.count()
        yield lambda law: bar.update(
            task, completed=next(done), description=spoken(law), refresh=True
        )


def _discreet(url: str) -> Callable[[str], str]:
    """Return what takes the URL's credentials out of a text, whoever put them in."""
    try:
        address, _ = parse_url(url)
    except ConfigurationError:
        return lambda text: text  # its own words show nothing of the URL
    words = {url: address.shown}
    if address.password is not None:
        encoded = url.partition("://")[2].rpartition("@")[0].partition(":")[2]
        words |= {encoded: "***", address.password.reveal(): "***"}

    def hide(text: str) -> str:
        for word, replacement in words.items():
            text = text.replace(word, replacement)
        return text

    return hide
