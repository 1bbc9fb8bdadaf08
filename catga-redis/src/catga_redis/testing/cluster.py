"""Servers in cluster mode on loopback, whose slots move and whose owners die as a test wants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import RedisError

from catga.testing import Running, free_port, wait_until
from catga_redis.testing.server import RedisServer
from redis import Redis

__all__ = ["RedisCluster"]

T = TypeVar("T")
_PATIENCE = 30.0
_NEVER = "the cluster did not come to an agreement"
_SIZE = 3
_BATCH = 100


class RedisCluster(Running):
    """Three primaries that share the slots; with `replica`, a fourth server follows the first.

    A context manager. Everything here blocks: from a coroutine, use `asyncio.to_thread`.
    """

    def __init__(self, binary: str | Path | None = None, *, replica: bool = False) -> None:
        self._buses = [free_port() for _ in range(_SIZE + replica)]
        self.nodes = [
            RedisServer(
                binary,
                options=(
                    *("--cluster-enabled", "yes", "--cluster-port", str(bus)),
                    *("--cluster-node-timeout", "1500", "--cluster-replica-validity-factor", "0"),
                    *("--cluster-allow-replica-migration", "no"),
                    *("--repl-diskless-sync-delay", "0"),
                ),
            )
            for bus in self._buses
        ]
        """The servers; the first three own slots at the start."""
        self._down: set[RedisServer] = set()

    @property
    def url(self) -> str:
        """`redis+cluster://` and all hosts."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def start(self) -> Self:
        """Start all and share the slots out; returns once every server knows of every other."""
        try:
            for node in self.nodes:
                node.start()
            self._share()
            self._until(self._agreed)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End all and remove their folders. Idempotent."""
        for node in self.nodes:
            node.stop()

    def restart(self) -> None:
        """Kill all (SIGKILL) and start them on their data; returns once they agree again."""
        for node in self.nodes:
            node.kill()
        for node in self.nodes:
            node.start()
        self._down.clear()
        self._until(self._agreed)

    def owner_of(self, key: str) -> RedisServer:
        """Return the server that owns the slot of a key, as the others see it."""
        return self._until(lambda: self._owner(key_slot(key.encode())))

    def move(self, key: str, *, meanwhile: Callable[[], None] | None = None) -> RedisServer:
        """Move the slot of a key with all that is in it to another server; return that one.

        `meanwhile` is called while one half of the keys is here and the other half there. Source:
        redis.io, command CLUSTER SETSLOT, "Redis Cluster live resharding explained".
        """
        slot = key_slot(key.encode())
        source = self.owner_of(key)
        target = next(node for node in self.nodes[:_SIZE] if node not in {source, *self._down})
        names = {node: _name(node) for node in (source, target)}
        ask(target, "CLUSTER SETSLOT", slot, "IMPORTING", names[source])
        ask(source, "CLUSTER SETSLOT", slot, "MIGRATING", names[target])
        keys = ask(source, "CLUSTER GETKEYSINSLOT", slot, 1_000_000)
        if meanwhile is not None:
            self._migrate(source, target, keys[: len(keys) // 2])
            meanwhile()
        while keys := ask(source, "CLUSTER GETKEYSINSLOT", slot, _BATCH):
            self._migrate(source, target, keys)
        for node in (target, source, *self.nodes):
            if node not in self._down and not _follows(node):
                ask(node, "CLUSTER SETSLOT", slot, "NODE", names[target])
        return target

    def kill_owner(self, key: str) -> RedisServer:
        """Kill the server that owns the slot of a key (SIGKILL); return it."""
        owner = self.owner_of(key)
        owner.kill()
        self._down.add(owner)
        return owner

    def promoted(self) -> None:
        """Wait until the replica owns what the first server did, and the cluster is whole."""
        self._until(lambda: not _follows(self.nodes[_SIZE]) and self._agreed())

    def fail_over(self) -> None:
        """Put the replica in charge of what the first server has, as planned; both live on."""
        ask(self.nodes[_SIZE], "CLUSTER FAILOVER")
        self.promoted()

    def replicated(self) -> None:
        """Wait until the replica has what the first server was sent so far."""
        first, replica = self.nodes[0], self.nodes[_SIZE]
        wanted = ask(first, "INFO", "replication")["master_repl_offset"]
        self._until(lambda: ask(replica, "INFO", "replication")["slave_repl_offset"] >= wanted)

    # ------------------------------------------------------------------------------------------

    def _share(self) -> None:
        share = -(-REDIS_CLUSTER_HASH_SLOTS // _SIZE)
        for number, node in enumerate(self.nodes):
            ask(node, "CLUSTER SET-CONFIG-EPOCH", number + 1)
            first, last = number * share, min((number + 1) * share, REDIS_CLUSTER_HASH_SLOTS) - 1
            if number < _SIZE:
                ask(node, "CLUSTER ADDSLOTSRANGE", first, last)
            ask(node, "CLUSTER MEET", "127.0.0.1", self.nodes[0].port, self._buses[0])
        for replica in self.nodes[_SIZE:]:
            name = _name(self.nodes[0])
            self._until(lambda: ask(replica, "CLUSTER REPLICATE", name))  # noqa: B023 - at once
            self._until(lambda: _linked(replica))  # noqa: B023 - at once

    def _agreed(self) -> bool:
        return all(
            ask(node, "CLUSTER INFO")["cluster_state"] == "ok"
            and int(ask(node, "CLUSTER INFO")["cluster_known_nodes"]) == len(self.nodes)
            and len(ask(node, "CLUSTER SLOTS")) >= _SIZE
            for node in self.nodes
            if node not in self._down
        )

    def _owner(self, slot: int) -> RedisServer | None:
        for node in self.nodes:
            if node in self._down:
                continue
            for first, last, (_, port, *_), *_ in ask(node, "CLUSTER SLOTS"):
                if first <= slot <= last:
                    return next(each for each in self.nodes if each.port == port)
        return None

    @staticmethod
    def _migrate(source: RedisServer, target: RedisServer, keys: list[bytes]) -> None:
        if keys:
            where = ("127.0.0.1", target.port, "", 0, 5000)
            ask(source, "MIGRATE", *where, "REPLACE", "KEYS", *keys)

    def _until(self, condition: Callable[[], T | None]) -> T:
        return wait_until(condition, _PATIENCE, lambda: _NEVER, RedisError)


def ask(node: RedisServer, *command: Any) -> Any:
    """Send one command to one server, wherever its key belongs."""
    with Redis(host="127.0.0.1", port=node.port, socket_timeout=10.0) as client:
        return client.execute_command(*command)


def _name(node: RedisServer) -> str:
    name = ask(node, "CLUSTER MYID")
    return name.decode() if isinstance(name, bytes) else str(name)


def _follows(node: RedisServer) -> bool:
    return bool(ask(node, "INFO", "replication")["role"] == "slave")


def _linked(node: RedisServer) -> bool:
    return bool(ask(node, "INFO", "replication").get("master_link_status") == "up")
