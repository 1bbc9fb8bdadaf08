"""The contract without a test runner: one finding for each law, for `catga verify` and for tools.

The laws need nothing but the core. Scenarios and random programs need Hypothesis
(`catga-core[testing]`); without it they are not shown, and say so.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
import traceback
from collections.abc import Callable, Collection
from enum import StrEnum
from pathlib import Path

import attrs

from catga.errors import ConfigurationError
from catga.ground.ids import new_instance
from catga.model.capability import QOS_CAPABILITY, Capabilities
from catga.model.qos import QualityOfService
from catga.plugins import Catalog, installed_catalog
from catga.settings import parse_url
from catga.testing import contract
from catga.testing.contract import TransportContract
from catga.testing.harness import Harness, Law
from catga.testing.stage import Stage

__all__ = [
    "EXTRA",
    "PROGRAMS",
    "SCENARIOS",
    "Broker",
    "Check",
    "Finding",
    "Verdict",
    "checks_of",
    "family_names",
    "find",
    "harness_for",
    "has_extra",
    "look_at",
]

SCENARIOS, PROGRAMS = "scenarios", "programs"
"""The families beside those of `TransportContract`."""
EXTRA = "Hypothesis: pip install 'catga-core[testing]'"
"""What these two need."""
_OF_LAWS = (Path(contract.__file__).parent, Path(contract.__file__).parents[1] / "programs")
_LONGEST = 300


class Verdict(StrEnum):
    """What became of one law."""

    SHOWN = "shown"
    NOT_SHOWN = "not shown"
    BROKEN = "broken"


@attrs.frozen
class Check:
    """One law that can be tried on a harness."""

    family: str
    law: Law
    act: Callable[[Harness], str | None] = attrs.field(repr=False)
    """May return other words for the law: what it showed, where that is known only then."""


@attrs.frozen
class Finding:
    """What became of one law, on one broker."""

    family: str
    law: Law
    verdict: Verdict
    seconds: float
    reason: str = ""
    """One line: what is missing to show it, or how it broke."""
    report: str = attrs.field(default="", repr=False)
    """How it broke, at length."""


@attrs.frozen
class Broker:
    """What answers at a URL."""

    server: str
    """What the server calls itself, with its version; empty when the transport cannot tell."""
    capabilities: Capabilities


def harness_for(url: str, time_scale: float = 1.0, catalog: Catalog | None = None) -> Harness:
    """Return the harness for a broker that is known by its URL only.

    A transport that lives in this process runs on a manual clock, under a name that the parts of
    a law share. Raises what a wrong URL raises, and `PluginError`.
    """
    address, _ = parse_url(url)
    plugins = catalog or installed_catalog()
    inside = plugins.transport_for(address.scheme).in_process
    if inside and not address.hosts and not address.path:
        url = url.replace("://", f"://verify-{new_instance()}", 1)
    return Harness(url=url, time_scale=time_scale, manual_clock=inside, catalog=catalog)


def look_at(harness: Harness) -> Broker:
    """Connect, and return what is there. Raises what connecting raises, `TimeoutError` when it
    hangs, and `AssertionError` when closing does."""

    async def look() -> Broker:
        stage = Stage(harness)
        try:
            async with asyncio.timeout(harness.law_seconds):
                transport = await stage.transport()
            return Broker(transport.server, transport.capabilities)
        finally:
            await stage.close()

    return asyncio.run(look())


# ---- what there is to try


def family_names() -> tuple[str, ...]:
    """Return the names of all families, in the order in which they are tried."""
    return (*(_family_name(each) for each in _families()), SCENARIOS, PROGRAMS)


def has_extra() -> bool:
    """Say whether scenarios and programs can be tried."""
    return importlib.util.find_spec("hypothesis") is not None


def checks_of(names: Collection[str], programs: int, broker: Broker) -> list[Check]:
    """Return the laws of the families that are named, with so many random programs.

    Without Hypothesis its families consist of one check that is never shown. Raises
    `ConfigurationError` for a name that is none.
    """
    if unknown := set(names) - set(family_names()):
        known = ", ".join(family_names())
        raise ConfigurationError(f"no family {min(unknown)!r} of laws; there are {known}")
    checks = [
        Check(_family_name(family), law, getattr(TransportContract(), law.name))
        for family in _families()
        if _family_name(family) in names
        for law in _laws(family)
    ]
    if SCENARIOS in names:
        checks += _if_there(SCENARIOS, _scenarios)
    if PROGRAMS in names and programs:
        checks += _if_there(PROGRAMS, lambda: _random(programs, broker))
    return checks


def _families() -> list[type]:
    return [each for each in TransportContract.__mro__ if _laws(each)]


def _laws(family: type) -> list[Law]:
    laws = (getattr(value, "law", None) for value in vars(family).values())
    return [each for each in laws if isinstance(each, Law)]


def _family_name(family: type) -> str:
    words = family.__name__.removesuffix("Contract")
    return "".join(f"-{each.lower()}" if each.isupper() else each for each in words).lstrip("-")


def _if_there(family: str, make: Callable[[], list[Check]]) -> list[Check]:
    if has_extra():
        return make()

    def lack(harness: Harness) -> None:
        harness.not_shown[family] = EXTRA

    return [Check(family, Law(family, "", None, frozenset()), lack)]


def _scenarios() -> list[Check]:
    from catga.testing.programs.play import keep_the_laws  # noqa: PLC0415 - needs Hypothesis
    from catga.testing.programs.scenarios import SCENARIOS as ALL  # noqa: PLC0415 - the same

    def check(name: str) -> Check:
        program, shows = ALL[name].program, ALL[name].shows
        highest = max(program.qualities, default=QualityOfService.EXACTLY_ONCE)  # of who only asks
        law = Law(name, "", QualityOfService(highest), program.needs)
        return Check(
            SCENARIOS, law, lambda harness: keep_the_laws(harness, program, shows=shows, name=name)
        )

    return [check(name) for name in ALL]


def _random(count: int, broker: Broker) -> list[Check]:
    from catga.testing.programs.contract import (  # noqa: PLC0415 - needs Hypothesis
        keep_the_laws_at_random,
    )
    from catga.testing.programs.profiles import Profile  # noqa: PLC0415 - the same

    words = "no law is broken by {} random programs"
    profile, present = Profile(manual=count, real=count), broker.capabilities.present

    def act(harness: Harness) -> str:
        return words.format(keep_the_laws_at_random(harness, present, profile, PROGRAMS).programs)

    check = Check(PROGRAMS, Law(PROGRAMS, words.format(count), None, frozenset()), act)
    return [check] if present & {*QOS_CAPABILITY.values()} else []


# ---- trying it


def find(check: Check, harness: Harness) -> Finding:
    """Try one law, on a loop and in a namespace of its own.

    Raises `KeyboardInterrupt` after Ctrl-C, when what the law made is removed.
    """
    law, name = check.law, check.law.name
    harness.not_shown.pop(name, None)
    began = time.perf_counter()
    verdict, reason, report = Verdict.SHOWN, "", ""
    try:
        law = attrs.evolve(law, words=check.act(harness) or law.words)
    except (Exception, asyncio.CancelledError) as error:
        verdict, reason = Verdict.BROKEN, _reason(error)
        report = "".join(traceback.format_exception(error))
    else:
        if name in harness.not_shown:
            verdict, reason = Verdict.NOT_SHOWN, harness.not_shown[name]
    seconds = time.perf_counter() - began
    return Finding(check.family, law, verdict, seconds, reason, report)


def _reason(error: BaseException) -> str:
    """Return one line: the words of the error, or the assertion itself, and where it stands."""
    frames = traceback.extract_tb(error.__traceback__)
    of_laws = [each for each in frames if Path(each.filename).parent in _OF_LAWS]
    words = " ".join(str(error).split())
    if not isinstance(error, AssertionError):
        words = f"{type(error).__name__}: {words}".removesuffix(": ")
    for frame in (of_laws or frames)[-1:]:
        words = f"{(words or frame.line or '')[:_LONGEST]} ({frame.name}, line {frame.lineno})"
    return words
