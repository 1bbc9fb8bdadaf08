"""Redis Cluster: who owns which slot, a connection to each owner, and what follows a slot."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from redis.asyncio.connection import Connection
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import ClusterDownError, MovedError

from catga.errors import CapabilityError, CatgaError, ConfigurationError, ConnectionLost
from catga.spi import Address, EventKind, Runtime, TransportEvent, end_all
from catga_redis.dial import Dialer
from catga_redis.errors import REPLY_ERRORS, translate
from catga_redis.servers import Servers
from catga_redis.settings import RedisSettings
from catga_redis.slots import Node, SlotLine
from catga_redis.wire import Line, Wire

__all__ = ["Cluster", "check_cluster_address"]

_LOOK_EVERY = 5.0
_LOOK_AT_MOST_EVERY = 0.1
_PATIENCE = 2.0
_ANYBODY = -1


def check_cluster_address(address: Address) -> None:
    """Raise `ConfigurationError` when it names a database."""
    if address.path not in {"", "0"}:
        raise ConfigurationError(
            f"{address.shown} names a database: a cluster has only one, so leave out the path"
        )


class Cluster(Servers):
    """The servers of one cluster. Its own map of slots is never waited for: an owner that is not
    one any more says so, and is believed at once."""

    sharded = True

    def __init__(self, address: Address, settings: RedisSettings, runtime: Runtime) -> None:
        self.where = address.shown
        self.runtime = runtime
        self._address = address
        self._settings = settings
        self._owners: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._wires: dict[Node, Wire] = {}
        self._reaching = asyncio.Lock()
        self._lines: dict[int, SlotLine] = {}
        self._followers: list[tuple[Wire, _Follower]] = []
        self._wanted = asyncio.Event()
        self._doubted: Node | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._said = ""

    # -- what the transport asks for -------------------------------------------------------------

    async def open(self) -> None:
        """Ask any host of the address who owns what, and connect to each owner."""
        try:
            async with asyncio.timeout(self.runtime.connect_deadline):
                dialer = _Follower(self, self._address, self._settings, _ANYBODY)
                connection = await dialer.dial_until(self.runtime)
                await self._learn_from(connection)
        except TimeoutError as error:
            await self.close()
            raise ConnectionLost(f"{self.where} does not answer") from error
        except BaseException:
            await self.close()
            raise
        self._keeper = self.runtime.spawn(self._keep(), "redis cluster: look who owns what")

    async def close(self) -> None:
        """Disconnect from all."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await end_all([keeper])
        await asyncio.gather(*(wire.close() for wire in self._wires.values()))

    @property
    def wires(self) -> Sequence[Wire]:
        """One to each owner of a slot."""
        owners = {node for node in self._owners if node is not None}
        return tuple(self._wires[node] for node in sorted(owners) if node in self._wires)

    def line(self, key: bytes) -> Line:
        """Return the line of the key's slot."""
        slot = key_slot(key)
        line = self._lines.get(slot)
        if line is None:
            line = self._lines[slot] = SlotLine(self, slot)
        return line

    def split(
        self, items: Sequence[int], key_of: Callable[[int], bytes]
    ) -> Sequence[tuple[Line, Sequence[int]]]:
        """By slot: no command reaches two, even where one server has both."""
        parts: dict[Line, list[int]] = {}
        for item in items:
            parts.setdefault(self.line(key_of(item)), []).append(item)
        return tuple(parts.items())

    def place(self, key: bytes) -> int:
        """Return the slot."""
        return key_slot(key) if key else _ANYBODY

    def wire(self, runtime: Runtime, role: str, key: bytes, patience: float, **more: Any) -> Wire:
        """Make a connection that follows the slot of its key, or stays with any owner."""
        dialer = _Follower(self, self._address, self._settings, self.place(key))
        wire = Wire(dialer, runtime, role, patience, **more)
        self._followers = [each for each in self._followers if not each[0].closed]
        self._followers.append((wire, dialer))
        return wire

    def beside(self, wire: Wire) -> Line:
        """Return the connection that carries commands to the same server."""
        found = None if wire.peer is None else self._wires.get(wire.peer)
        if found is None or not found.connected:
            raise ConnectionLost(f"not connected to the server of {self.where} that is read from")
        return found

    def trouble(self) -> str:
        """Say how many slots nobody owns, or whose owner is not connected."""
        gone = sum(1 for node in self._owners if node is None or node not in self._wires)
        return f"{gone} slots of {self.where} have no owner that answers" if gone else ""

    # -- what lines ask for ----------------------------------------------------------------------

    def owner(self, slot: int) -> Wire | None:
        """Return the connection to the owner of a slot."""
        node = self._owners[slot]
        return None if node is None else self._wires.get(node)

    async def reach(self, node: Node) -> Wire:
        """Return a connection to a server of the cluster, maybe a new one."""
        wire = self._wires.get(node)
        if wire is None:
            async with self._reaching:
                wire = self._wires.get(node)
                if wire is None:
                    wire = await self._connect(node)
                    self._wires[node] = wire
        return wire

    def moved(self, slot: int, node: Node) -> None:
        """Believe it, and look what else has changed."""
        if self._owners[slot] != node:
            self._owners[slot] = node
            self._wanted.set()

    def doubt(self, node: Node | None) -> None:
        """Look soon, and ask others first."""
        self._doubted = node
        self._wanted.set()

    def candidates(self, slot: int) -> list[Node]:
        """Return whom to dial for a slot: its owner, or for any all owners and the given hosts."""
        if slot != _ANYBODY:
            node = self._owners[slot]
            if node is None:
                self._wanted.set()
            return [] if node is None else [node]
        owners = sorted({node for node in self._owners if node is not None} - {self._doubted})
        random.shuffle(owners)
        return owners

    # -- the map ---------------------------------------------------------------------------------

    async def _connect(self, node: Node) -> Wire:
        address = attrs.evolve(self._address, hosts=(node,), path="")
        patience = self._settings.reply_timeout.total_seconds()
        wire = Wire(Dialer(address, self._settings), self.runtime, "commands", patience)
        await wire.open()
        return wire

    async def _keep(self) -> None:
        """Look who owns what: now and then, and soon when somebody is in doubt."""
        while True:
            timer = self.runtime.clock.call_later(_LOOK_EVERY, self._wanted.set)
            try:
                await self._wanted.wait()
            finally:
                timer.cancel()
            self._wanted.clear()
            try:
                await self._look()
                self._said = self.trouble()
            except CatgaError as error:
                if str(error) != self._said:
                    self._said = str(error)
                    self.runtime.emit(TransportEvent(EventKind.TROUBLE, self._said))
            await self.runtime.clock.sleep(_LOOK_AT_MOST_EVERY)

    async def _look(self) -> None:
        doubted = self._doubted
        known = [wire for wire in self._wires.values() if wire.connected]
        random.shuffle(known)
        for wire in sorted(known, key=lambda each: each.peer == doubted):
            host = wire.peer[0] if wire.peer else ""
            try:
                reply = await wire.call(b"CLUSTER", b"SLOTS", patience=_PATIENCE)
            except (CatgaError, *REPLY_ERRORS):
                continue
            await self._use(_read_slots(reply, host))
            return
        dialer = _Follower(self, self._address, self._settings, _ANYBODY)
        await self._learn_from(await dialer.dial(_PATIENCE))

    async def _learn_from(self, connection: Connection) -> None:
        """Ask on a connection that is used for nothing else."""
        try:
            await connection.send_command(b"CLUSTER", b"SLOTS")
            reply = await connection.read_response()
        except REPLY_ERRORS as error:
            if "cluster support disabled" in str(error):
                raise CapabilityError(
                    f"{self.where} is no cluster (`cluster-enabled no`): use redis://host:port"
                ) from error
            raise translate(error, self.where) from error
        except Exception as error:
            raise translate(error, self.where) from error
        finally:
            await connection.disconnect(nowait=True)
        await self._use(_read_slots(reply, str(connection.host)))

    async def _use(self, owners: list[Node | None]) -> None:
        nodes = {node for node in owners if node is not None}
        if not nodes:
            raise ConnectionLost(f"no server of {self.where} owns a slot (see `CLUSTER INFO`)")
        found = await asyncio.gather(*map(self.reach, sorted(nodes)), return_exceptions=True)
        failures = [each for each in found if isinstance(each, BaseException)]
        self._owners = owners
        self._doubted = None
        await self._leave_the_lost(nodes)
        for wire, dialer in self._followers:
            if wire.peer is not None and not dialer.leads_to(wire.peer):
                wire.leave("it owns the slot no more")
        if failures:
            raise failures[0]

    async def _leave_the_lost(self, nodes: set[Node]) -> None:
        """Whoever owns nothing and does not answer is not dialled any more."""
        for node, wire in list(self._wires.items()):
            if node not in nodes and not wire.connected:
                del self._wires[node]
                await wire.close()


class _Follower(Dialer):
    """Dials whoever owns a slot now; or any owner, and as long as there is none a given host."""

    def __init__(
        self, cluster: Cluster, address: Address, settings: RedisSettings, slot: int
    ) -> None:
        super().__init__(attrs.evolve(address, path=""), settings)
        self._cluster = cluster
        self._slot = slot
        self._next = 0.0

    @property
    def has_choice(self) -> bool:
        """Replicas are not passed over: what they are asked here they know, or say who does."""
        return False

    @property
    def leaves_on(self) -> tuple[type[Exception], ...]:
        """Who owns a slot says so by its answer."""
        return (MovedError, ClusterDownError)

    def told(self, reply: Exception) -> None:
        """Believe who is named; or look."""
        if isinstance(reply, MovedError):
            self._cluster.moved(reply.slot_id, reply.node_addr)
        else:
            self._cluster.doubt(None)

    def leads_to(self, node: Node) -> bool:
        """Whether it would dial this one too."""
        return node in self._cluster.candidates(self._slot)

    def _hosts(self) -> Sequence[tuple[str, int | None]]:
        found: list[tuple[str, int | None]] = [*self._cluster.candidates(self._slot)]
        return found if self._slot != _ANYBODY else [*found, *super()._hosts()]

    async def dial(self, timeout: float) -> Connection:
        """Dial; not more often than the map can follow."""
        loop = asyncio.get_running_loop()
        wait, self._next = self._next - loop.time(), loop.time() + _LOOK_AT_MOST_EVERY
        if wait > 0:
            await asyncio.sleep(wait)
        try:
            return await super().dial(timeout)
        except ConnectionLost:
            self._cluster.doubt(None)
            raise


def _read_slots(reply: Sequence[Any], asked: str) -> list[Node | None]:
    """Return the owner of each slot from the reply of `CLUSTER SLOTS`; who is asked may leave its
    own host out (redis.io, command CLUSTER SLOTS, read for 7.2)."""
    owners: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    for first, last, primary, *_ in reply:
        host = primary[0].decode() if primary[0] else asked
        node = (host, int(primary[1]))
        owners[first : last + 1] = [node] * (last + 1 - first)
    return owners
