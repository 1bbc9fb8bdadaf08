"""What the laws of dead letters share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from catga.bus import Bus
from catga.engine.deadletters import DeadLetter
from catga.engine.letterbox import LetterFilter
from catga.engine.replaying import FoundLetter
from catga.model.capability import Capability
from catga.spi import DeadLetterStore, Kind, Outgoing
from catga.testing.stage import Stage

__all__ = [
    "LETTERS",
    "ONCE",
    "dead",
    "fail",
    "fails_until",
    "letter_in",
    "letters_of",
    "parked",
    "store_of",
]

LETTERS = [Capability.DEAD_LETTERS]
ONCE: dict[str, object] = {"attempts": 1}
"""Settings: the first failure is the last."""


async def fail(number: int, _attempt: int) -> None:
    """Fail on every message."""
    raise ValueError(f"number {number} fails")


def fails_until(ready: Callable[[], bool]) -> Callable[[int, int], Awaitable[None]]:
    """Return what fails until it is told that all is well now."""

    async def act(number: int, attempt: int) -> None:
        if not ready():
            await fail(number, attempt)

    return act


async def letters_of(bus: Bus, wanted: LetterFilter | None = None) -> list[FoundLetter]:
    """Return the letters that a bus of the namespace sees."""
    return [found async for found in bus.dead_letters.find(wanted)]


async def parked(stage: Stage, bus: Bus, count: int, type_: str = "Ordered") -> list[FoundLetter]:
    """Wait until the bus has parked so many; return the letters that are there."""
    name = f"{bus.group}/{type_}"
    await stage.until(lambda: bus.counts()[name].get("dead-letter", 0) >= count)
    return await stage.wait(letters_of(bus))


def letter_in(found: FoundLetter) -> DeadLetter:
    """Return what could be read of it; that must be all."""
    assert found.letter is not None, found.unreadable
    return found.letter


def store_of(stage: Stage) -> DeadLetterStore:
    """Return where the letters lie, without a bus between."""
    store = stage.anchor.dead_letters
    assert store is not None, "the capability is there"
    return store


def dead(stage: Stage, group: str, body: bytes, type_: str = "Ordered") -> Outgoing:
    """Return one letter with this body, on its way to where letters lie."""
    return stage.out(type_, body, kind=Kind.DEAD, group=group)
