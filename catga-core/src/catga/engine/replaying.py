"""Replaying dead letters: to the group that failed and to no other, published before removed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum

import attrs

from catga.codecs import read_envelope, write_envelope
from catga.engine.deadletters import DeadLetter, read_letter
from catga.errors import CodecError, ConfigurationError, DecodeError, TransportError
from catga.model.qos import QualityOfService
from catga.spi import (
    DeadLetterStore,
    Done,
    Kind,
    Outgoing,
    PublishResult,
    Receipt,
    Rejected,
    SettleResult,
    Source,
    StoredLetter,
    Subject,
    Unknown,
)

__all__ = ["MAX_REPLAYS", "Fate", "FoundLetter", "Replayer", "Result", "remove", "replayed"]

MAX_REPLAYS = 3
"""How often one message may come back, unless told otherwise."""
_REMOVALS = 3


@attrs.frozen
class FoundLetter:
    """One dead letter where it is stored, as far as it can be read."""

    stored: StoredLetter
    letter: DeadLetter | None
    unreadable: str = ""
    """Why there is no `letter`: anybody may have written to its subject."""

    @classmethod
    def of(cls, stored: StoredLetter) -> FoundLetter:
        """Read it. Never raises."""
        try:
            return cls(stored, read_letter(stored))
        except DecodeError as error:
            return cls(stored, None, str(error))

    @property
    def place(self) -> str:
        """Its name, unique within the namespace: `group/type/sequence`."""
        subject = self.stored.subject
        return f"{subject.group}/{subject.type}/{self.stored.sequence}"


class Fate(StrEnum):
    """What became of one letter."""

    DONE = "done"
    """Replayed and removed (or removed, when that was all that was asked for)."""
    GONE = "gone"
    """Somebody else was first: it has been replayed or removed already."""
    REFUSED = "refused"
    """Nothing was done, and it still lies there; `reason` says why."""
    FAILED = "failed"
    """Nothing is known to have happened, and it still lies there. Trying again is safe."""


@attrs.frozen
class Result:
    """One letter, and what became of it."""

    found: FoundLetter
    fate: Fate
    reason: str = ""


def replayed(letter: DeadLetter) -> Outgoing:
    """Return the original, once more, for the group that failed on it.

    Its id at the broker is new, or the broker would take it for what it had before; and derived
    from the letter, so that replaying that twice within W stores one copy. The envelope inside,
    and with it the message id, is the original's; attempts begin anew.
    """
    body = letter.body
    if letter.headers:
        try:  # what is not of our making may carry its envelope in headers, which end here
            body = write_envelope(read_envelope(body, letter.headers))
        except CodecError:
            body = letter.body  # as unreadable as it was: it will be parked again
    subject = Subject(letter.subject.namespace, Kind.REDO, letter.subject.type, letter.group)
    return Outgoing(
        subject,
        body,
        f"replay.{letter.letter_id}",
        QualityOfService.EXACTLY_ONCE,
        replays=letter.replays + 1,
    )


class Replayer:
    """Replays the letters of one namespace."""

    def __init__(
        self,
        store: DeadLetterStore,
        send: Callable[[Sequence[Outgoing]], Awaitable[list[PublishResult]]],
        verify: Callable[[Source], Awaitable[None]],
        max_replays: int = MAX_REPLAYS,
    ) -> None:
        self._store = store
        self._send = send
        self._verify = verify
        self._max_replays = max_replays
        self._missing: dict[tuple[str, str], str] = {}
        self.unknown: dict[str, str] = {}
        """Groups (`group/type`) of which it cannot be told whether they are there, and why."""

    async def refusal(self, found: FoundLetter) -> str:
        """Return why this letter cannot be replayed; empty when it can."""
        letter = found.letter
        if letter is None:
            return f"it cannot be read: {found.unreadable}"
        if letter.body_left_out:
            return (
                f"its body of {letter.body_left_out} bytes was too large to be kept beside its "
                f"cause; the original may still lie on {letter.subject} as {letter.sequence}"
            )
        if letter.replays >= self._max_replays:
            return (
                f"it was replayed {letter.replays} times and failed again each time; correct the "
                f"cause, or allow more than {self._max_replays} replays"
            )
        return await self._why_missing(found.stored.subject)

    async def _why_missing(self, subject: Subject) -> str:
        """Return why nobody would get it: its group is not there any more. Asked once each."""
        key = (subject.group, subject.type)
        if key not in self._missing:
            source = Source(
                subject.namespace, subject.type, subject.group, durable=True, attempts=0
            )
            self._missing[key] = ""
            try:
                await self._verify(source)
            except ConfigurationError as error:
                words = f"the group {subject.group} takes no {subject.type} any more: {error}"
                self._missing[key] = words
            except TransportError as error:
                self.unknown["/".join(key)] = str(error)
        return self._missing[key]

    async def replay(self, batch: Sequence[FoundLetter]) -> list[Result]:
        """Publish each to its group, then remove what is surely stored there.

        One failure does not stop the others. Cancelled, or crashed, at any point: a letter that
        was published and not removed can be replayed again, and the broker stores no second copy
        within W.
        """
        results = {place: await self._refused(found) for place, found in enumerate(batch)}
        again = {
            place: replayed(found.letter)
            for place, found in enumerate(batch)
            if results[place] is None and found.letter is not None
        }
        sent = await self._send(list(again.values())) if again else []
        stored: list[int] = []
        for place, result in zip(again, sent, strict=True):
            if isinstance(result, Receipt):
                stored.append(place)
            else:
                results[place] = Result(batch[place], Fate.FAILED, _words(result))
        removed = await remove(self._store, [batch[place] for place in stored])
        results |= zip(stored, removed, strict=True)
        return [result for result in results.values() if result is not None]

    async def _refused(self, found: FoundLetter) -> Result | None:
        reason = await self.refusal(found)
        return Result(found, Fate.REFUSED, reason) if reason else None


def _words(result: Rejected | Unknown) -> str:
    if isinstance(result, Rejected):
        return f"it was not stored: {result.error}"
    return f"it is not known whether it was stored: {result.error}"


async def remove(store: DeadLetterStore, batch: Sequence[FoundLetter]) -> list[Result]:
    """Remove each for good; what stays unknown is tried again, as that is harmless."""
    outcomes: dict[int, SettleResult] = {}
    left = list(range(len(batch)))
    for _ in range(_REMOVALS):
        if left:
            tried = await store.remove([batch[place].stored for place in left])
            outcomes |= zip(left, tried, strict=True)
            left = [place for place in left if isinstance(outcomes[place], Unknown)]
    return [_removed(found, outcomes[place]) for place, found in enumerate(batch)]


def _removed(found: FoundLetter, outcome: SettleResult) -> Result:
    if isinstance(outcome, Unknown):
        return Result(found, Fate.FAILED, f"it may not have been removed: {outcome.error}")
    return Result(found, Fate.DONE if isinstance(outcome, Done) else Fate.GONE)
