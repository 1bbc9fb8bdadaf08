"""What the broker has stored of the messages of a program."""

from __future__ import annotations

import json

from catga.codecs import read_envelope
from catga.testing.programs.history import Copy
from catga.testing.programs.member import MESSAGES, words
from catga.testing.stage import Stage

__all__ = ["read_copies"]


async def read_copies(stage: Stage, qos: int) -> list[Copy]:
    """Return every stored copy of this quality, and whether it holds what was published."""
    copies: list[Copy] = []
    for body in await stage.copies(MESSAGES[qos].__name__):
        envelope = read_envelope(body, None)
        intact = json.loads(bytes(envelope.data)) == {"text": words(envelope.id)}
        copies.append(Copy(envelope.id, qos, intact))
    return copies
