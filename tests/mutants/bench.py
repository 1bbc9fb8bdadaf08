"""Trying laws out: on what is right, and on a mutant."""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from enum import StrEnum
from types import FrameType
from typing import Any

import attrs

from catga.testing.contract import TransportContract
from catga.testing.harness import Harness
from catga.testing.process import ServerProcess
from catga.testing.programs import ProgramContract
from catga.testing.programs.scenarios import SCENARIOS as PROGRAMS
from catga_nats.testing import NatsServer
from catga_redis.testing import RedisServer
from mutants.mutation import Base, Mutant

__all__ = ["LAWS", "SCENARIOS", "Hangs", "Outcome", "Trial", "bounded", "harness_of", "try_out"]

_SECONDS = {False: 6.0, True: 60.0}
"""How long one law may take in memory, where all together take three, and on a real server."""
_numbers = itertools.count(1)


class Outcome(StrEnum):
    """What became of one law."""

    KEPT = "kept"
    BROKEN = "broken"
    NOT_SHOWN = "not shown"
    STILLBORN = "stillborn"
    """The mutant itself does not run: it fits no more to what it replaces."""


@attrs.frozen
class Trial:
    """One law, tried out."""

    law: str
    outcome: Outcome
    words: str
    """How it was broken, or what is missing to show it."""
    seconds: float
    steps: int | None = None
    """The length of the program that broke it."""


LawTest = Callable[[Harness], None]


def _tests(contract: object) -> dict[str, LawTest]:
    return {name: getattr(contract, name) for name in dir(contract) if name.startswith("test_")}


SCENARIOS = {f"test_{name}": _tests(ProgramContract())[f"test_{name}"] for name in PROGRAMS}
"""The scripted programs."""
LAWS = _tests(TransportContract()) | SCENARIOS
"""Every law of the contract and every scenario, by its name."""


@contextmanager
def harness_of(base: Base) -> Iterator[Callable[[], Harness]]:
    """Yield what makes a harness for one law; a server runs as long as the `with`."""
    if not base.broker:
        yield lambda: Harness(
            url=f"inmemory://mutant-{next(_numbers)}",
            manual_clock=True,
            small={"live_buffer": 100},
            small_buffer=100,
        )
        return
    server: ServerProcess = NatsServer() if base is Base.NATS else RedisServer()

    async def restart() -> None:
        server.kill()
        await asyncio.to_thread(server.start)

    nats = base is Base.NATS
    full = {"max_bytes": 2_000_000} if nats else None
    small = {"max_ack_pending": 60} if nats else {}
    quick: dict[str, object] = {} if nats else {"trim_interval": 0.1, "reclaim_interval": 0.1}
    with server:
        yield lambda: Harness(
            url=server.url,
            time_scale=0.25,
            restart=restart,
            pause=server.stand_still,
            full=full,
            small=small,
            settings=quick,
        )


class Hangs(KeyboardInterrupt):
    """A law takes too long. Not an `Exception`: tasks keep those for themselves."""


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Interrupt what does not end, a loop that never lets go included; log nothing meanwhile."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, ring)
    quiet = logging.root.manager.disable
    logging.disable()  # what goes wrong is the point
    signal.setitimer(signal.ITIMER_REAL, seconds, 5.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        logging.disable(quiet)


def try_out(
    name: str, test: LawTest, make: Callable[[], Harness], mutant: Mutant | None = None
) -> Trial:
    """Run one law, on `mutant` or on what is right."""
    harness, began = make(), time.monotonic()
    outcome, words = Outcome.KEPT, ""
    try:
        with (
            mutant.applied() if mutant is not None else nullcontext(),
            bounded(_SECONDS[not harness.manual_clock]),
        ):
            test(harness)
    except Hangs:
        outcome, words = Outcome.BROKEN, "it hangs"
    except (TypeError, NameError, AttributeError) as error:
        outcome, words = Outcome.STILLBORN, _words(error)
    except Exception as error:
        outcome, words = Outcome.BROKEN, _words(error)
    if name in harness.not_shown:
        outcome, words = Outcome.NOT_SHOWN, harness.not_shown[name]
    return Trial(name, outcome, words, time.monotonic() - began)


def _words(error: BaseException) -> str:
    text: Any = str(error) or type(error).__name__
    return " ".join(text.split())[:200]
