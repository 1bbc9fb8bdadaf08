"""The dead letters of one namespace: found by what is known of them, replayed, removed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime

import attrs

from catga.engine.replaying import MAX_REPLAYS, FoundLetter, Replayer, Result, remove
from catga.errors import AuthenticationError, ConfigurationError
from catga.spi import DeadLetterStore, Outgoing, PublishResult, Source, StoredLetter, Subject

__all__ = ["DeadLetters", "LetterFilter"]

_PAGE = 100


@attrs.frozen(kw_only=True)
class LetterFilter:
    """Which letters are meant; an empty field leaves them all. Times must have a zone."""

    types: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    cause: str = ""
    """Part of the cause or of the error, in any case of letters."""
    since: datetime | None = None
    """Parked then or later."""
    before: datetime | None = None
    """Parked earlier."""
    ids: frozenset[str] = frozenset()
    """Message ids, or places (`group/type/sequence`)."""

    def __attrs_post_init__(self) -> None:
        for time in (self.since, self.before):
            if time is not None and time.tzinfo is None:
                raise ConfigurationError(f"the time {time.isoformat()} needs a zone")

    def reaches(self, subject: Subject) -> bool:
        """Say whether any letter of this subject can be meant."""
        return (not self.types or subject.type in self.types) and (
            not self.groups or subject.group in self.groups
        )

    def means(self, found: FoundLetter) -> bool:
        """Say whether this letter is meant; one that cannot be read has no cause and no time."""
        letter = found.letter
        names = {found.place, "" if letter is None else letter.message_id}
        if self.ids and not self.ids & names:
            return False
        if letter is None:
            return not (self.cause or self.since or self.before)
        if self.cause and self.cause.lower() not in f"{letter.cause}\n{letter.error}".lower():
            return False
        if self.since is not None and letter.parked_at < self.since:
            return False
        return self.before is None or letter.parked_at < self.before


class DeadLetters:
    """What the groups of one namespace gave up on. Nothing happens unless it is asked for."""

    def __init__(
        self,
        namespace: str,
        store: DeadLetterStore,
        send: Callable[[Sequence[Outgoing]], Awaitable[list[PublishResult]]],
        verify: Callable[[Source], Awaitable[None]],
    ) -> None:
        self._namespace = namespace
        self._store = store
        self._send = send
        self._verify = verify
        self.unknown: dict[Subject, str] = {}
        """What a search could not look into because it may not, with the words of the broker."""

    async def counts(self) -> dict[Subject, int]:
        """Return how many letters each group has of each type; only those that have any.

        Raises `TransportError`, as everything here.
        """
        counts = await self._store.subjects(self._namespace)
        return {subject: counts[subject] for subject in sorted(counts, key=_order)}

    async def find(self, wanted: LetterFilter | None = None) -> AsyncIterator[FoundLetter]:
        """Yield the letters that are meant, group by group and type by type, the oldest first.

        Reads a page at a time; what is parked meanwhile may come as well. Letters may be replayed
        or removed while the search goes on. What may not be read is passed over, and stands in
        `unknown`.
        """
        which = LetterFilter() if wanted is None else wanted
        for subject in await self.counts():
            if not which.reaches(subject):
                continue
            try:
                async for stored in self._read(subject):
                    found = FoundLetter.of(stored)
                    if which.means(found):
                        yield found
            except AuthenticationError as error:
                self.unknown[subject] = str(error)

    async def _read(self, subject: Subject) -> AsyncIterator[StoredLetter]:
        after = ""
        while page := await self._store.read(subject, after, _PAGE):
            after = page[-1].sequence
            for stored in page:
                yield stored

    def replayer(self, max_replays: int = MAX_REPLAYS) -> Replayer:
        """Return what replays letters that came back fewer than `max_replays` times."""
        return Replayer(self._store, self._send, self._verify, max_replays)

    async def replay(
        self, letters: Sequence[FoundLetter], max_replays: int = MAX_REPLAYS
    ) -> list[Result]:
        """Send each original to the group that failed on it, once more, and remove the letter.

        See `Replayer.replay`; refused are those that cannot be read, have no body, came back
        `max_replays` times already, or whose group is not there any more.
        """
        return await self.replayer(max_replays).replay(letters)

    async def purge(self, letters: Sequence[FoundLetter]) -> list[Result]:
        """Remove each for good, without replaying it."""
        return await remove(self._store, letters)


def _order(subject: Subject) -> tuple[str, str]:
    return subject.group, subject.type
