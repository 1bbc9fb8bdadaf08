"""Watching who is there: snapshots become changes; hints only say when to look again."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self

import attrs

from catga.engine.wording import tell_of
from catga.errors import AuthenticationError, ConfigurationError
from catga.ground.clock import Clock
from catga.model.node import ChangeKind, Node, NodeChange
from catga.spi import NodeStore, Sighting, Snapshot

__all__ = ["Watch", "differences", "in_order"]

_LOOKS_PER_LEASE = 2
_PAUSES_PER_LEASE = 30
_LONGEST_PAUSE = 0.2
"""Seconds between two looks when hints come in a row; less for a short lease."""
_LATE = 0.01
"""The share of a lease by which we look after its end: the broker must have seen it end too."""
_FINAL = (AuthenticationError, ConfigurationError)


def differences(seen: Mapping[str, Sighting], now: Snapshot) -> list[NodeChange]:
    """Return what happened between what was seen and what is there now: at most two changes for
    each node, those that are gone first."""
    gone: list[NodeChange] = []
    come: list[NodeChange] = []
    for name, old in sorted(seen.items()):
        new = now.present.get(name)
        if new is None:
            kind = ChangeKind.LEFT if name in now.left else ChangeKind.EXPIRED
            gone.append(NodeChange(kind, old.node))
        elif new.owner != old.owner:  # only the end of a lease hands an id on
            gone.append(NodeChange(ChangeKind.EXPIRED, old.node))
            come.append(NodeChange(ChangeKind.JOINED, new.node))
        elif attrs.evolve(new.node, last_seen=old.node.last_seen) != old.node:
            come.append(NodeChange(ChangeKind.UPDATED, new.node))
    new_names = sorted(now.present.keys() - seen.keys())
    come += [NodeChange(ChangeKind.JOINED, now.present[name].node) for name in new_names]
    return gone + come


class Watch:
    """What happens among the nodes: an async context manager, and an async iterator in it.

    It begins with a `JOINED` for each node that is there. Then it looks again at a hint of the
    broker, at the end of the earliest lease it knows of, and at random twice in a lease whatever
    happens, so that a lost hint only delays. It looks when it is read, and not before all changes
    were taken: a slow reader has at most two changes per node waiting, and sees the net of what
    happened meanwhile. For one reader.

    While the broker is not there nobody is said to be gone: `trouble` says what is wrong.
    """

    def __init__(
        self, store: NodeStore, clock: Clock, ttl: float, random: Callable[[], float]
    ) -> None:
        self._store = store
        self._clock = clock
        self._ttl = ttl
        self._pause = min(ttl / _PAUSES_PER_LEASE, _LONGEST_PAUSE)
        self._random = random
        self._seen: Mapping[str, Sighting] = {}
        self._changes: list[NodeChange] = []
        self._woken = asyncio.Event()
        self._hinted = False
        self._closed = False
        self._looked = -math.inf
        self._next = -math.inf
        self._hints = contextlib.AsyncExitStack()
        self.trouble = ""
        """Why the last look failed; empty while what was read is fresh."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Everybody who was there when it looked last, by service and id."""
        return in_order(sighting.node for sighting in self._seen.values())

    async def __aenter__(self) -> Self:
        """Listen to hints, then read what is there. Raises what reading raises."""
        await self._hints.enter_async_context(self._store.hints(self._hint))
        try:
            await self._look()
        except BaseException:
            await self._hints.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed = True
        self._woken.set()
        await self._hints.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> NodeChange:
        """Return the next change, whenever it comes; ends when the watch is closed.

        Cancelled: nothing was taken out.
        """
        if not self._changes:
            await self._fill(math.inf)
        if not self._changes:
            raise StopAsyncIteration
        return self._changes.pop(0)

    async def receive(self, max_wait: float) -> list[NodeChange]:
        """Return all changes that wait, or none after `max_wait` seconds or once it is closed.

        Raises `AuthenticationError` and `ConfigurationError`; other failures it sits out.
        Cancelled: nothing was taken out.
        """
        await self._fill(max_wait)
        taken, self._changes = self._changes, []
        return taken

    def _hint(self) -> None:
        self._hinted = True
        self._woken.set()

    async def _fill(self, max_wait: float) -> None:
        until = self._clock.monotonic() + max_wait
        while not self._changes and not self._closed:
            now = self._clock.monotonic()
            due = self._due()
            if now >= due:
                await self._try_to_look()
            elif now >= until:
                return
            else:
                await self._sleep(min(due, until) - now)

    def _due(self) -> float:
        """When to look again; hints that come in a row are answered together."""
        soon = self._looked + self._pause
        return min(soon, self._next) if self._hinted else self._next

    async def _sleep(self, seconds: float) -> None:
        self._woken.clear()
        timer = self._clock.call_later(seconds, self._woken.set)
        try:
            await self._woken.wait()
        finally:
            timer.cancel()

    async def _try_to_look(self) -> None:
        try:
            await self._look()
        except _FINAL:
            raise
        except Exception as error:
            self.trouble = tell_of(error, "looking at the nodes met what nobody foresaw")
            self._hinted = False  # the next one comes with the connection
            self._plan(self._pause * (1 + self._random()))

    async def _look(self) -> None:
        self._hinted = False
        snapshot = await self._store.snapshot()
        self.trouble = ""
        self._changes += differences(self._seen, snapshot)
        self._seen = snapshot.present
        first_end = min((each.expires_in for each in snapshot.present.values()), default=math.inf)
        pause = self._ttl / _LOOKS_PER_LEASE * (0.75 + self._random() / 2)
        self._plan(min(pause, first_end + self._ttl * _LATE))

    def _plan(self, pause: float) -> None:
        self._looked = self._clock.monotonic()
        self._next = self._looked + pause


def in_order(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Return nodes by service and id."""
    return tuple(sorted(nodes, key=lambda node: (node.service, node.id)))
