"""Exactly once, windowed mode: what this group completed is not handled again.

The broker owns the deliveries, so nothing is claimed here: records are looked up before a handler
runs and written after it succeeded. Two copies of one id in this process wait for each other.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import attrs
import msgspec

from catga.engine.work import State, Work
from catga.ground.clock import Clock
from catga.spi import Completion, InboxStore, Record

__all__ = ["Admitted", "Once", "failure_of"]

_log = logging.getLogger("catga")
_PAUSE = 0.2
_TRIES = 5


def failure_of(key: Completion) -> Completion:
    """Return the key under which it is kept how a request failed: no id of a message has a space.

    It is no completion: a replay of the dead letter runs the handler, and may still complete it.
    """
    return msgspec.structs.replace(key, message_id=f"{key.message_id} failed")


@attrs.frozen
class Admitted:
    """What is to become of a batch of deliveries."""

    to_handle: list[Work] = attrs.field(factory=list)
    completed: list[Work] = attrs.field(factory=list)
    failed: list[Work] = attrs.field(factory=list)
    """Requests whose failure is kept: another copy, or this one before its letter was stored."""
    unclear: list[Work] = attrs.field(factory=list)
    """It cannot be told now."""


class Once:
    """Decides for one (group, type) which deliveries still have to be handled.

    `answers`: what it handles are requests, of which failures are kept as well.
    """

    def __init__(
        self, inbox: InboxStore, clock: Clock, *, key: Completion, answers: bool = False
    ) -> None:
        self._of = key.namespace, key.group, key.type
        self._answers = answers
        self._inbox = inbox
        self._clock = clock
        self._in_hand: dict[str, list[Work]] = {}
        """By id: the delivery that is dealt with, and behind it the copies that wait for it."""

    def record(self, work: Work) -> Record:
        """Return what is to be recorded of a delivery whose handler succeeded."""
        return Record(self._key(work), None if work.reply is None else work.reply.body)

    def _key(self, work: Work) -> Completion:
        return Completion(*self._of, _id(work))

    def failure(self, work: Work, body: bytes) -> Record:
        """Return what is to be kept of a request that became a dead letter."""
        return Record(failure_of(self._key(work)), body)

    async def failures(self, works: Sequence[Work]) -> list[bytes | None]:
        """Return how each had failed. Raises `TransportError` when it cannot be told."""
        return await self._inbox.responses([failure_of(self._key(work)) for work in works])

    async def admit(self, works: Sequence[Work]) -> Admitted:
        """Sort deliveries; a second copy of an id in hand is not among them: `after` brings it
        back."""
        fresh: list[Work] = []
        in_hand = self._in_hand
        for work in works:
            message_id = _id(work)
            copies = in_hand.get(message_id)
            if copies is None:
                in_hand[message_id] = [work]
                fresh.append(work)
            else:
                copies.append(work)
        return await self.sort(fresh)

    async def sort(self, works: list[Work]) -> Admitted:
        """Sort deliveries by what is recorded of them now."""
        keys = [self._key(work) for work in works]
        done = await self._look_up([*keys, *map(failure_of, keys)] if self._answers else keys)
        if done is None:
            return Admitted(unclear=works)
        admitted = Admitted()
        for place, work in enumerate(works):
            if done[place]:
                admitted.completed.append(work)
            elif self._answers and done[place + len(keys)] and not work.delivery.replays:
                admitted.failed.append(work)
            else:
                admitted.to_handle.append(work)
        return admitted

    def completed(self, works: Sequence[Work]) -> list[Work]:
        """Deliveries in hand were completed: return the copies that waited for them."""
        done: list[Work] = []
        in_hand = self._in_hand
        for work in works:
            if work.exactly and work.envelope is not None:
                copies = in_hand.pop(work.envelope.id, None)
                if copies is not None and len(copies) > 1:  # almost never
                    done += copies
        return _waiting(done)

    def after(self, work: Work, *, completed: bool) -> tuple[list[Work], list[Work]]:
        """A delivery in hand ended: return which waiting copies to handle, and which are done."""
        copies = self._in_hand.get(_id(work), [])
        if not copies or copies[0] is not work:
            if work in copies:  # it waited itself: nobody waits for it
                copies.remove(work)
            return [], []
        del copies[0]
        if completed or not copies:
            del self._in_hand[_id(work)]
            return [], _waiting(copies)
        copies[0].waited = True
        return copies[:1], []

    async def _look_up(self, keys: list[Completion]) -> list[bool] | None:
        if not keys:
            return []
        for round_ in range(_TRIES):
            try:
                return await self._inbox.completed(keys)
            except Exception as error:
                _log.warning("completion records cannot be read: %s", error)
                await self._clock.sleep(_PAUSE * 2**round_)
        return None


def _waiting(copies: list[Work]) -> list[Work]:
    """Leave out what was acknowledged or given back by now."""
    return [copy for copy in copies if copy.state is State.QUEUED]


def _id(work: Work) -> str:
    return "" if work.envelope is None else work.envelope.id
