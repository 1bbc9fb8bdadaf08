"""Exactly once, windowed mode: what this group completed is not handled again.

The broker owns the deliveries, so nothing is claimed here: records are looked up before a handler
runs and written after it succeeded. Two copies of one id in this process wait for each other.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from catga.engine.work import Work
from catga.ground.clock import Clock
from catga.spi import Completion, InboxStore, Record

__all__ = ["Once"]

_log = logging.getLogger("catga")
_PAUSE = 0.2
_TRIES = 5


class Once:
    """Decides for one (group, type) which deliveries still have to be handled."""

    def __init__(
        self, inbox: InboxStore, clock: Clock, *, namespace: str, group: str, type_: str
    ) -> None:
        self._inbox = inbox
        self._clock = clock
        self._namespace = namespace
        self._group = group
        self._type = type_
        self._in_hand: dict[str, list[Work]] = {}

    def record(self, work: Work) -> Record:
        """Return what is to be recorded of a delivery whose handler succeeded."""
        return Record(self._key(_id(work)), None if work.reply is None else work.reply.body)

    def _key(self, message_id: str) -> Completion:
        return Completion(self._namespace, self._group, self._type, message_id)

    async def admit(self, works: Sequence[Work]) -> tuple[list[Work], list[Work], list[Work]]:
        """Sort deliveries into: to handle, completed before, and cannot be told now.

        A second copy of an id in hand is in none of the three: `after` brings it back.
        """
        fresh: list[Work] = []
        for work in works:
            message_id = _id(work)
            waiting = self._in_hand.get(message_id)
            if waiting is None:
                self._in_hand[message_id] = []
                fresh.append(work)
            else:
                waiting.append(work)
        done = await self._look_up([_id(work) for work in fresh])
        if done is None:
            return [], [], fresh
        to_handle = [work for work, known in zip(fresh, done, strict=True) if not known]
        completed = [work for work, known in zip(fresh, done, strict=True) if known]
        return to_handle, completed, []

    async def look_again(self, work: Work) -> bool | None:
        """Say whether a delivery that waited was completed elsewhere; None when it cannot be
        told."""
        done = await self._look_up([_id(work)])
        return None if done is None else done[0]

    def after(self, work: Work, *, completed: bool) -> tuple[list[Work], list[Work]]:
        """A delivery in hand ended: return which waiting copies to handle, and which are done."""
        waiting = self._in_hand.pop(_id(work), [])
        if completed or not waiting:
            return [], waiting
        first, *rest = waiting
        self._in_hand[_id(first)] = rest
        return [first], []

    async def _look_up(self, ids: list[str]) -> list[bool] | None:
        if not ids:
            return []
        keys = [self._key(message_id) for message_id in ids]
        for round_ in range(_TRIES):
            try:
                return await self._inbox.completed(keys)
            except Exception as error:
                _log.warning("completion records cannot be read: %s", error)
                await self._clock.sleep(_PAUSE * 2**round_)
        return None


def _id(work: Work) -> str:
    return "" if work.envelope is None else work.envelope.id
