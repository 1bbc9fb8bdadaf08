"""Where a command goes: to the one server, or to whoever owns the slot of its key."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from catga.errors import ConnectionLost
from catga.spi import Runtime
from catga_redis.dial import Dialer
from catga_redis.wire import Line, Wire, pack_command

__all__ = ["OneServer", "Servers", "together"]


class Servers(ABC):
    """What a bus is connected to.

    Every key of a type has the same place, so that one line carries all that belongs together.
    """

    sharded = False
    """Whether keys have owners, so that no command reaches two types at once."""
    where: str
    """The server or servers, as they may be shown."""

    @abstractmethod
    async def open(self) -> None:
        """Connect within the bus's connect deadline, and stay connected until `close`."""

    @abstractmethod
    async def close(self) -> None:
        """Send what waits to be sent, and disconnect. Idempotent."""

    @property
    @abstractmethod
    def wires(self) -> Sequence[Wire]:
        """One connection to each server that holds keys."""

    @abstractmethod
    def line(self, key: bytes) -> Line:
        """Return what carries commands on this key."""

    @abstractmethod
    def split(
        self, items: Sequence[int], key_of: Callable[[int], bytes]
    ) -> Sequence[tuple[Line, Sequence[int]]]:
        """Return the lines that carry these items, each with its own in their order."""

    @abstractmethod
    def place(self, key: bytes) -> int:
        """Return what two keys have in common that one blocking read can wait for."""

    @abstractmethod
    def wire(self, runtime: Runtime, role: str, key: bytes, patience: float, **more: Any) -> Wire:
        """Make a connection of one's own to whoever has this key (b"": to any); not open yet."""

    @abstractmethod
    def beside(self, wire: Wire) -> Line:
        """Return what reaches the server that another connection leads to.

        Raises `ConnectionLost` when nothing does.
        """

    def trouble(self) -> str:
        """Say what is missing that no connection shows; empty when nothing is."""
        return ""

    async def ask(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands whose second word is their key, in one round trip to each line.

        Returns the reply to each, error replies as values. Raises `CatgaError` when a connection
        is lost.
        """
        replies: list[Any] = [None] * len(commands)

        async def carry(line: Line, part: Sequence[int]) -> None:
            packed = b"".join(pack_command(commands[index]) for index in part)
            for index, reply in zip(part, await line.request(packed, len(part)), strict=True):
                replies[index] = reply

        parts = self.split(range(len(commands)), lambda index: commands[index][1])
        await together([carry(*part) for part in parts])
        return replies


async def together(asked: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Await all of them, none behind another; one alone, as almost always, without a task."""
    if len(asked) == 1:
        await asked[0]
    else:
        await asyncio.gather(*asked)


class OneServer(Servers):
    """One server, however it was found: everything goes over one connection."""

    def __init__(self, dialer: Dialer, runtime: Runtime, patience: float) -> None:
        self.where = dialer.where
        self._dialer = dialer
        self._wire = Wire(dialer, runtime, "commands", patience)

    async def open(self) -> None:
        """Connect."""
        await self._wire.open()

    async def close(self) -> None:
        """Disconnect."""
        await self._wire.close()

    @property
    def wires(self) -> Sequence[Wire]:
        """The one connection."""
        return (self._wire,)

    def line(self, key: bytes) -> Line:
        """Return the one connection."""
        del key
        return self._wire

    def split(
        self, items: Sequence[int], key_of: Callable[[int], bytes]
    ) -> Sequence[tuple[Line, Sequence[int]]]:
        """Leave them together, without a look at any key."""
        del key_of
        return ((self._wire, items),) if items else ()

    def place(self, key: bytes) -> int:
        """Return the same for all."""
        del key
        return 0

    def wire(self, runtime: Runtime, role: str, key: bytes, patience: float, **more: Any) -> Wire:
        """Make one more connection to the server."""
        del key
        return Wire(self._dialer, runtime, role, patience, **more)

    def beside(self, wire: Wire) -> Line:
        """Return the one connection."""
        del wire
        if not self._wire.connected:
            raise ConnectionLost(f"not connected to {self.where}")
        return self._wire
