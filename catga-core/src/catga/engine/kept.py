"""The responses that are kept with completion records, looked up by who still waits for one.

A repeated request is swallowed by the broker and a response may get lost: the group that answered
keeps it, and the requester finds it there without the handler running again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeAlias

import attrs

from catga.engine.once import failure_of
from catga.engine.wording import tell_of
from catga.ground.clock import Clock
from catga.ground.tasks import TaskOwner
from catga.spi import Completion, InboxStore, Transport

__all__ = ["KeptResponses", "Response"]

Response: TypeAlias = "asyncio.Future[bytes | None]"
"""Of one request: the response's data, or None when none has come in time."""

_log = logging.getLogger("catga")
_SHORTEST = 0.05
_FRESH = 1.0
_LONGEST = 2.0


@attrs.define
class _Search:
    key: Completion
    due: float
    pause: float


class KeptResponses:
    """Looks for all that is waited for, in one call, at growing intervals."""

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        tasks: TaskOwner,
        found: Callable[[Response, bytes], None],
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._tasks = tasks
        self._found = found
        self._searches: dict[Response, _Search] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def look_for(
        self, key: Completion, waiter: Response, seconds: float, *, repeated: bool
    ) -> None:
        """Look for a response until `forget`: at once for what was asked before, else when it has
        had its time to come by itself."""
        if waiter.done():
            return
        pause = _SHORTEST if repeated else min(_FRESH, seconds / 4)
        due = self._clock.monotonic() + (0.0 if repeated else pause)
        self._searches[waiter] = _Search(key, due, pause)
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = self._tasks.spawn(self._run(), "look for kept responses")

    def forget(self, waiter: Response) -> None:
        """Look for this one no more."""
        self._searches.pop(waiter, None)

    async def _run(self) -> None:
        while self._searches:
            now = self._clock.monotonic()
            due = {w: s for w, s in self._searches.items() if s.due <= now and not w.done()}
            if due:
                await self._look(due)
                continue
            first = min(search.due for search in self._searches.values())
            self._wake.clear()
            timer = self._clock.call_later(max(first - now, _SHORTEST), self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()

    async def _look(self, due: dict[Response, _Search]) -> None:
        inbox = self._transport.inbox
        try:
            keys = [search.key for search in due.values()]
            found = [None] * len(keys) if inbox is None else await self._read(inbox, keys)
        except Exception as error:
            words = tell_of(error, "reading kept responses met what nobody foresaw")
            _log.debug("kept responses cannot be read now: %s", words)
            found = [None] * len(due)
        now = self._clock.monotonic()
        for (waiter, search), body in zip(due.items(), found, strict=True):
            search.due = now + search.pause
            search.pause = min(search.pause * 2, _LONGEST)
            if body is not None:
                self.forget(waiter)
                self._found(waiter, body)

    @staticmethod
    async def _read(inbox: InboxStore, keys: list[Completion]) -> list[bytes | None]:
        """Return the response to each, or else how it failed."""
        found = await inbox.responses([*keys, *map(failure_of, keys)])
        return [a or b for a, b in zip(found[: len(keys)], found[len(keys) :], strict=True)]
