"""Commands on the keys of one slot: sent to its owner, and after it when it has moved."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

import hiredis
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from catga.errors import CatgaError, ConnectionLost
from catga.spi import Runtime
from catga_redis.errors import ELSEWHERE
from catga_redis.wire import Line, Wire, pack_command

__all__ = ["Node", "Owners", "SlotLine", "cut"]

Node: TypeAlias = tuple[str, int]
"""The host and port of a server, as the cluster names it."""

_MOST_TRIES = 9
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.3
_ASKING = pack_command((b"ASKING",))


class Owners(Protocol):
    """Who knows which server owns which slot."""

    runtime: Runtime
    where: str

    def owner(self, slot: int) -> Wire | None:
        """The connection to the owner of a slot."""

    async def reach(self, node: Node) -> Wire:
        """Return a connection to a server. Raises `ConnectionLost`."""

    def moved(self, slot: int, node: Node) -> None:
        """Learn that a slot has another owner."""

    def doubt(self, node: Node | None) -> None:
        """Look again who owns what, and ask others than this one first."""


class SlotLine(Line):
    """Follows the redirections of the cluster: whoever answers with one has done nothing."""

    def __init__(self, owners: Owners, slot: int) -> None:
        self._owners = owners
        self._slot = slot

    @property
    def connected(self) -> bool:
        """Whether its owner can be reached now."""
        wire = self._owners.owner(self._slot)
        return wire is not None and wire.connected

    async def request(
        self, packed: bytes, replies: int = 1, patience: float | None = None
    ) -> list[Any]:
        """Send to the owner; what it redirects is sent where it says, one command by one."""
        found = await self._owner().request(packed, replies, patience)
        if any(isinstance(reply, ELSEWHERE) for reply in found):
            await self._follow(packed, found, patience)
        return found

    def post(self, packed: bytes, replies: int = 1) -> bool:
        """Send to the owner; only a redirection makes a task of it."""
        wire = self._owners.owner(self._slot)
        if wire is None or not wire.connected:
            self._owners.doubt(None)
            return False
        wire.request(packed, replies).add_done_callback(partial(self._posted, packed))
        return True

    async def room(self) -> None:
        """Return once the owner's connection has room."""
        wire = self._owners.owner(self._slot)
        if wire is not None:
            await wire.room()

    def _owner(self) -> Wire:
        wire = self._owners.owner(self._slot)
        if wire is None or not wire.connected:
            self._owners.doubt(None)
        if wire is None:
            raise ConnectionLost(f"nobody owns slot {self._slot} of {self._owners.where}")
        return wire

    def _posted(self, packed: bytes, future: asyncio.Future[list[Any]]) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        found = future.result()
        if any(isinstance(reply, ELSEWHERE) for reply in found):
            self._owners.runtime.spawn(self._follow(packed, found, None), "redis: follow a slot")

    async def _follow(self, packed: bytes, found: list[Any], patience: float | None) -> None:
        """Put a true reply in the place of each redirection, as far as there is one in time."""
        commands = cut(packed)
        pause = _FIRST_PAUSE
        for again in range(_MOST_TRIES):
            wrong = [index for index, reply in enumerate(found) if isinstance(reply, ELSEWHERE)]
            if not wrong or self._down(found, wrong):
                return
            if again or any(isinstance(found[index], TryAgainError) for index in wrong):
                await self._owners.runtime.clock.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            await self._send_again(commands, wrong, found, patience)

    def _down(self, found: Sequence[Any], wrong: Sequence[int]) -> bool:
        """Whether the cluster is down as a whole: then it is the caller who has time to wait."""
        down = any(isinstance(found[index], ClusterDownError) for index in wrong)
        if down:
            wire = self._owners.owner(self._slot)
            self._owners.doubt(None if wire is None else wire.peer)
        return down

    async def _send_again(
        self,
        commands: Sequence[bytes],
        wrong: Sequence[int],
        found: list[Any],
        patience: float | None,
    ) -> None:
        sent: list[tuple[int, asyncio.Future[list[Any]]]] = []
        for index in wrong:
            try:
                sent.append((index, await self._aim(found[index], commands[index], patience)))
            except ConnectionLost:
                return  # what is not sent keeps its redirection: surely nothing was done
        for index, future in sent:
            try:
                found[index] = (await future)[-1]
            except CatgaError as error:
                if type(error) is not ConnectionLost:
                    found[index] = error  # it may have been done: a value, for the others are not

    async def _aim(
        self, reply: Exception, command: bytes, patience: float | None
    ) -> asyncio.Future[list[Any]]:
        if isinstance(reply, MovedError):
            self._owners.moved(reply.slot_id, reply.node_addr)
            return (await self._owners.reach(reply.node_addr)).request(command, 1, patience)
        if isinstance(reply, AskError):
            wire = await self._owners.reach(reply.node_addr)
            return wire.request(_ASKING + command, 2, patience)
        return self._owner().request(command, 1, patience)


def cut(packed: bytes) -> list[bytes]:
    """Take packed commands apart, each packed again."""
    reader = hiredis.Reader()
    reader.feed(packed)
    commands: list[bytes] = []
    while (words := reader.gets()) is not False:
        commands.append(pack_command(tuple(words)))
    return commands
