"""What the laws of nodes act with: members of a law's namespace, and what a watch has told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from catga.engine.discovery import Discovery, NodePace
from catga.engine.membership import Watch
from catga.errors import TransportError
from catga.ground.clock import ManualClock
from catga.ground.ids import new_instance
from catga.model.node import ChangeKind, Node, NodeChange
from catga.spi import Mode, Transport
from catga.testing.stage import Stage

__all__ = [
    "LASTING",
    "Reader",
    "ending",
    "grace",
    "listed",
    "member",
    "node",
    "until_done",
    "watching",
]

LASTING = 60.0
"""Seconds of a lease that does not end while its law runs."""


def ending(stage: Stage) -> float:
    """Return the seconds of a lease whose end is waited for."""
    return stage.scaled(2.0)


def grace(stage: Stage) -> float:
    """Return the seconds within which somebody must have noticed what happened."""
    return 0.1 if isinstance(stage.clock, ManualClock) else 5.0


def member(
    stage: Stage, transport: Transport, ttl: float = LASTING, namespace: str = ""
) -> Discovery:
    """Return one process, as it were: an owner of its own on this transport."""
    store = transport.node_store(namespace or stage.namespace, ttl, Mode.CREATE)
    pace = NodePace(ttl, ttl / 3)
    return Discovery(store, stage.clock, pace, new_instance(), emit=stage.events.append)


def node(name: str, **facts: object) -> Node:
    """Return a node of the law."""
    return Node(id=name, service="law", **facts)  # type: ignore[arg-type]  # checked by itself


async def listed(discovery: Discovery) -> list[str]:
    """Return the ids of who is there."""
    return [each.id for each in await discovery.nodes()]


async def until_done(stage: Stage, write: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do it again and again, until the broker is there to take it."""
    until = stage.clock.monotonic() + LASTING / 3
    while True:
        try:
            await stage.wait(write())
            return
        except TransportError:
            assert stage.clock.monotonic() < until, "it does not come back"
            await stage.pass_time(0.2)


class Reader:
    """Reads a watch, and keeps what it told."""

    def __init__(self, stage: Stage, watch: Watch) -> None:
        self._stage = stage
        self.watch = watch
        self.told: list[tuple[str, str]] = []
        """Kind and id of each change so far."""
        self.changes: list[NodeChange] = []

    async def read(self, seconds: float = 0.0) -> None:
        """Take what is told within so many (real) seconds."""
        changes = await self._stage.wait(self.watch.receive(seconds), seconds + 20.0)
        self.changes += changes
        self.told += [(change.kind.value, change.node.id) for change in changes]

    async def hear(self, kind: ChangeKind, name: str, seconds: float = 20.0) -> NodeChange:
        """Return the next change of this kind about this node; what comes before is kept too."""
        seen = len(self.changes)
        until = self._stage.clock.monotonic() + seconds
        while True:
            for change in self.changes[seen:]:
                if (change.kind, change.node.id) == (kind, name):
                    return change
            seen = len(self.changes)
            left = until - self._stage.clock.monotonic()
            assert left > 0, f"{name} {kind.value}: never told, only {self.told}"
            await self.read(left)


@asynccontextmanager
async def watching(stage: Stage, discovery: Discovery) -> AsyncIterator[Reader]:
    """Watch as long as the `async with` lasts."""
    watch = discovery.watch()
    await stage.wait(watch.__aenter__())
    try:
        yield Reader(stage, watch)
    finally:
        await stage.wait(watch.__aexit__(None, None, None))
