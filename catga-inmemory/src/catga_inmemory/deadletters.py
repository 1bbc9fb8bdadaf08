"""Dead letters in memory: each stays until it is removed, however old."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from catga.spi import DeadLetterStore, Done, Lost, SettleResult, StoredLetter, Subject
from catga_inmemory.broker import MemoryBroker

__all__ = ["MemoryDeadLetters"]


class MemoryDeadLetters(DeadLetterStore):
    """The letters of one broker; `broker` raises `ConnectionLost` when the transport is closed."""

    def __init__(self, broker: Callable[[], MemoryBroker]) -> None:
        self._broker = broker

    async def subjects(self, namespace: str) -> dict[Subject, int]:
        """Count them."""
        return {
            subject: len(letters)
            for stream in self._broker().streams(namespace)
            for subject, letters in stream.dead.items()
            if letters
        }

    async def read(self, subject: Subject, after: str = "", limit: int = 100) -> list[StoredLetter]:
        """Return a page; what was removed meanwhile is passed over."""
        stream = self._broker().stream(subject.namespace, subject.type)
        behind = int(after or 0)
        letters = stream.dead.get(subject, {}).values()
        page = [entry for entry in letters if int(entry.sequence) > behind]
        return [StoredLetter(subject, entry.sequence, entry.body) for entry in page[:limit]]

    async def remove(self, letters: Sequence[StoredLetter]) -> list[SettleResult]:
        """Forget each; none of it can fail."""
        return [Done() if self._forget(letter) else Lost() for letter in letters]

    def _forget(self, letter: StoredLetter) -> bool:
        stream = self._broker().stream(letter.subject.namespace, letter.subject.type)
        entry = stream.dead.get(letter.subject, {}).pop(letter.sequence, None)
        if entry is None:
            return False
        entry.body = b""  # its id may be remembered for ever
        return True
