"""Three JetStream servers that form a cluster on loopback."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Self, TypeVar
from urllib.request import urlopen

from catga.testing import Running, free_port, wait_until
from catga_nats.testing.asking import ask
from catga_nats.testing.server import NatsServer

__all__ = ["NatsCluster"]

T = TypeVar("T")
_PATIENCE = 20.0
_NEVER = "the cluster did not come to an agreement"


class NatsCluster(Running):
    """Three nodes, `n1` to `n3`, each a `NatsServer`; a stream may have three replicas (R3).

    A context manager. Everything here blocks: from a coroutine, use `asyncio.to_thread`.
    """

    def __init__(self, binary: str | None = None) -> None:
        routes = {f"n{number}": free_port() for number in (1, 2, 3)}
        self._monitors = {name: free_port() for name in routes}
        others = ", ".join(f"nats://127.0.0.1:{port}" for port in routes.values())
        self.nodes = {
            name: NatsServer(
                binary,
                config=f"server_name: {name}\nhttp: 127.0.0.1:{self._monitors[name]}\n"
                f"cluster {{ name: catga, listen: 127.0.0.1:{port}, routes: [{others}] }}",
            )
            for name, port in routes.items()
        }
        self._down = set(self.nodes)

    @property
    def url(self) -> str:
        """All three hosts."""
        return "nats://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes.values())

    def start(self) -> Self:
        """Start what is down; returns once there is a leader and every replica is up to date."""
        try:
            for name in sorted(self._down):
                self.nodes[name].start()
                self._down.discard(name)
            self._until(self._caught_up)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End all nodes and remove their folders. Idempotent."""
        for name, node in self.nodes.items():
            node.stop()
            self._down.add(name)

    def leader_of(self, stream: str) -> str:
        """Return the name of the node that leads `stream`, once there is one.

        Raises `ConfigurationError` when there is none in 20 s.
        """
        return self._until(lambda: self._leader(stream))

    def meta_leader(self) -> str:
        """Return the name of the node that leads the others, once there is one.

        It alone answers what is asked of JetStream as a whole. Raises as `leader_of` does.
        """
        return self._until(self._meta_leader)

    def kill(self, name: str) -> None:
        """End a node at once (SIGKILL); its data stays for `restart`."""
        self.nodes[name].kill()
        self._down.add(name)

    def kill_leader(self, stream: str) -> str:
        """End the node that leads `stream` at once (SIGKILL); return its name."""
        name = self.leader_of(stream)
        self.kill(name)
        return name

    def step_down(self, stream: str) -> str:
        """Make the leader of `stream` hand over to another; return the new one's name.

        A stream's consumers have leaders of their own, which stay where they are.
        """
        before = self.leader_of(stream)
        self._request(f"STREAM.LEADER.STEPDOWN.{stream}")
        return self._until(
            lambda: name if (name := self._leader(stream)) not in {None, before} else None
        )

    def restart(self, name: str) -> None:
        """Start a node (again); returns once every replica is up to date."""
        if name not in self._down:
            self.kill(name)
        self.start()

    def clear(self) -> None:
        """Remove every stream: who starts again has to catch up with each.

        Raises `OSError` when the cluster does not answer.
        """
        for name in self._request("STREAM.NAMES")["streams"] or ():
            self._request(f"STREAM.DELETE.{name}")

    # ------------------------------------------------------------------------------------------

    def _request(self, call: str) -> dict[str, Any]:
        """Ask the first node that is up. Raises `OSError`."""
        name = min(set(self.nodes) - self._down)
        return ask(self.nodes[name].port, f"$JS.API.{call}")

    def _leader(self, stream: str) -> str | None:
        cluster = self._request(f"STREAM.INFO.{stream}").get("cluster", {})
        leader: str | None = cluster.get("leader")
        return leader if leader not in self._down else None

    def _meta_leader(self) -> str | None:
        name = min(set(self.nodes) - self._down)
        with urlopen(f"http://127.0.0.1:{self._monitors[name]}/jsz", timeout=2) as page:
            leader: str | None = json.load(page).get("meta_cluster", {}).get("leader")
        return leader if leader not in self._down else None

    def _caught_up(self) -> bool:
        names = self._request("STREAM.NAMES")
        if "error" in names:
            return False
        infos = [self._request(f"STREAM.INFO.{name}") for name in names["streams"] or ()]
        return all(
            info.get("cluster", {}).get("leader")
            and all(peer["current"] for peer in info["cluster"].get("replicas") or ())
            for info in infos
        )

    def _until(self, condition: Callable[[], T | None]) -> T:
        # An `OSError`: no leader answers yet.
        return wait_until(condition, _PATIENCE, lambda: _NEVER, OSError)
