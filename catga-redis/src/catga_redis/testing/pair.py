"""A primary and its replica on loopback, and the promotion of the one by the loss of the other."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Self

from catga.errors import ConfigurationError
from catga.testing import Running, wait_until
from catga_redis.testing.server import RedisServer

__all__ = ["RedisPair"]

_PATIENCE = 10.0
_PAUSE = 0.01


class RedisPair(Running):
    """Two persistent servers, the second a replica of the first.

    A context manager. Replication is asynchronous: what the replica was not sent when `promote`
    is called is lost, whatever the primary had answered (`replicated` waits for it).
    Everything here blocks: from a coroutine, use `asyncio.to_thread`.
    """

    def __init__(self, binary: str | Path | None = None) -> None:
        # Without it the primary waits 5 s for further replicas before it sends its data.
        self.primary = RedisServer(binary, options=("--repl-diskless-sync-delay", "0"))
        """The one that is in charge at the start."""
        self.replica = RedisServer(
            binary, options=("--replicaof", "127.0.0.1", str(self.primary.port))
        )
        self.in_charge = self.primary
        """The one that takes writes."""

    @property
    def url(self) -> str:
        """The address of the one in charge."""
        return self.in_charge.url

    def start(self) -> Self:
        """Start both; returns once the replica is connected to the primary."""
        try:
            self.primary.start()
            self.replica.start()
            self._until(b"master_link_status:up")
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End both and remove their folders. Idempotent."""
        self.replica.stop()
        self.primary.stop()

    def replicated(self, seconds: float = _PATIENCE) -> bool:
        """Wait for the replica to have what anybody wrote so far; say whether it has.

        By comparing offsets: `WAIT` knows only the writes of the connection that asks.
        """
        deadline = time.monotonic() + seconds
        wanted = _field(self.primary.port, b"master_repl_offset")
        while _field(self.replica.port, b"slave_repl_offset") < wanted:
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
        return True

    def lag(self) -> None:
        """Stop the replica in its work: what is written from now on does not reach it.

        It is also cut off, or what the kernel has taken in would still be read by `promote`.
        """
        self.replica.pause()
        _ask(self.primary.port, b"CLIENT KILL TYPE replica")

    def promote(self) -> str:
        """Kill the primary (SIGKILL), put the replica in charge; return the new `url`."""
        self.primary.kill()
        self.replica.resume()
        _ask(self.replica.port, b"REPLICAOF NO ONE")
        self._until(b"role:master")
        self.in_charge = self.replica
        return self.url

    def hand_over(self) -> str:
        """Put the replica in charge, with everything replicated, and the primary below it, as a
        planned failover does; both live on. Return the new `url`."""
        _ask(self.primary.port, b"CLIENT PAUSE 10000 WRITE")
        if not self.replicated():
            raise ConfigurationError("the replica did not catch up")
        _ask(self.replica.port, b"REPLICAOF NO ONE")
        self._until(b"role:master")
        _ask(self.primary.port, b"REPLICAOF 127.0.0.1 %d" % self.replica.port)
        _ask(self.primary.port, b"CLIENT UNPAUSE")
        self.in_charge = self.replica
        return self.url

    def _until(self, words: bytes) -> None:
        def said() -> bool:
            return words in _ask(self.replica.port, b"INFO replication")

        wait_until(said, _PATIENCE, lambda: f"the replica never said {words.decode()}")


def _field(port: int, name: bytes) -> int:
    for line in _ask(port, b"INFO replication").splitlines():
        key, _, value = line.partition(b":")
        if key == name:
            return int(value)
    return 0


def _ask(port: int, command: bytes) -> bytes:
    """Send one command on a connection of its own; return its reply as it comes."""
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) as link:
        link.sendall(command + b"\r\n")
        stream = link.makefile("rb")
        reply = stream.readline()
        if reply.startswith(b"$"):
            return stream.read(int(reply[1:]))
        if reply.startswith(b"-"):
            raise ConfigurationError(f"{command.decode()}: {reply.decode().strip()}")
        return reply
