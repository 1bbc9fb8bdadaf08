"""A primary, its replica, and a sentinel that replaces the one by the other when it is dead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from redis.exceptions import RedisError

from catga.testing import Running, ServerProcess, wait_until
from catga_redis.testing.pair import RedisPair
from catga_redis.testing.server import find_server
from redis import Redis

__all__ = ["RedisSentinel"]

_PATIENCE = 30.0
_NAME = "orders"


class RedisSentinel(Running):
    """Three servers on loopback; one sentinel is enough to decide (quorum 1).

    A context manager. Everything here blocks: from a coroutine, use `asyncio.to_thread`.
    """

    def __init__(self, binary: str | Path | None = None) -> None:
        self.pair = RedisPair(binary)
        """The two servers; `promote` and `hand_over` are the sentinel's work here."""
        self.sentinel = _Sentinel(binary, self.pair.primary.port)

    @property
    def url(self) -> str:
        """`redis+sentinel://127.0.0.1:port/orders`: the same before and after a failover."""
        return self.sentinel.url

    def start(self) -> Self:
        """Start all; returns once the sentinel knows the replica."""
        try:
            self.pair.start()
            self.sentinel.start()
            self._until(lambda: self.sentinel.ask("SENTINEL", "REPLICAS", _NAME))
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End all and remove their folders. Idempotent."""
        self.sentinel.stop()
        self.pair.stop()

    def kill_primary(self) -> None:
        """Kill the server in charge at the start (SIGKILL); the sentinel has to notice."""
        self.pair.primary.kill()

    def promoted(self) -> None:
        """Wait until the sentinel has put the replica in charge."""
        port = str(self.pair.replica.port).encode()
        self._until(
            lambda: self.sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", _NAME)[1] == port
        )

    def _until(self, condition: Callable[[], object]) -> None:
        def failure() -> str:
            return f"the sentinel did not get there:\n{self.sentinel.log()}"

        wait_until(condition, _PATIENCE, failure, RedisError)


class _Sentinel(ServerProcess):
    def __init__(self, binary: str | Path | None, primary: int) -> None:
        super().__init__()
        self._binary = Path(binary) if binary is not None else find_server()
        # It keeps what it learns in its own settings file, and does not start without one.
        (self.folder / "sentinel.conf").write_text(
            f"sentinel monitor {_NAME} 127.0.0.1 {primary} 1\n"
            f"sentinel down-after-milliseconds {_NAME} 500\n"
            f"sentinel failover-timeout {_NAME} 5000\n"
        )

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.port}/{_NAME}"

    def command(self) -> list[str]:
        return [
            str(self._binary),
            str(self.folder / "sentinel.conf"),
            "--sentinel",
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--dir",
            str(self.folder),
        ]

    def ready(self) -> bool:
        try:
            return bool(self.ask("PING"))
        except RedisError:
            return False

    def ask(self, *command: str) -> Any:
        with Redis(host="127.0.0.1", port=self.port, socket_timeout=5.0) as client:
            return client.execute_command(*command)
