"""What programs do with dead letters: count what there is, and replay it."""

from __future__ import annotations

from catga.engine.deadletters import read_letter
from catga.engine.letterbox import DeadLetters, LetterFilter
from catga.engine.replaying import Fate
from catga.errors import CatgaError
from catga.spi import DeadLetterStore
from catga.testing.programs.history import History

__all__ = ["read_letters", "replay_letters"]


async def read_letters(store: DeadLetterStore, namespace: str) -> frozenset[tuple[str, str]]:
    """Return the group and the message of every dead letter that the broker has."""
    found: set[tuple[str, str]] = set()
    for subject in await store.subjects(namespace):
        after = ""
        while page := await store.read(subject, after):
            after = page[-1].sequence
            found.update((subject.group, read_letter(each).message_id) for each in page)
    return frozenset(found)


async def replay_letters(
    letters: DeadLetters, group: str, types: frozenset[str], history: History
) -> None:
    """Replay what a group has of these types, and note what surely or perhaps came back."""
    wanted = LetterFilter(types=types, groups=frozenset({group}))
    try:
        found = [each async for each in letters.find(wanted)]
        places = [(group, each.letter.message_id) for each in found if each.letter is not None]
        # Noted before it is done: what is replayed can run before the answer is here.
        history.perhaps_replayed.update(places)
        results = await letters.replay(found)
    except CatgaError:
        return  # what was noted may have happened, or not
    for each in results:
        if each.found.letter is None:
            continue
        place = (group, each.found.letter.message_id)
        if each.fate is Fate.DONE:
            history.replayed[place] += 1
        elif each.fate is Fate.REFUSED:
            history.perhaps_replayed[place] -= 1
