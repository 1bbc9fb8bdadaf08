"""Finding the primary through Sentinel, and following it when another one takes over."""

from __future__ import annotations

from typing import Any

from redis.asyncio.connection import Connection

from catga.errors import AuthenticationError, ConfigurationError, ConnectionLost
from catga.spi import Address, Secret
from catga_redis.dial import Dialer, connect, database
from catga_redis.errors import translate
from catga_redis.settings import RedisSettings

__all__ = ["SentinelDialer"]

_SENTINEL_PORT = 26379
_EXAMPLE = "redis+sentinel://host:26379,host:26379/name-of-the-primary/0"


class SentinelDialer(Dialer):
    """Asks the sentinels, one after the other, for every new connection.

    The user information of the URL is the server's. What a sentinel names is believed only when
    the server there calls itself the primary: while a failover runs the answer can be the old one.
    Source: redis.io, "Guidelines for Redis clients with support for Sentinel".
    """

    def __init__(self, address: Address, settings: RedisSettings) -> None:
        if not address.path.partition("/")[0]:
            raise ConfigurationError(f"{address.shown} must name its primary: {_EXAMPLE}")
        super().__init__(address, settings)
        self._name = address.path.partition("/")[0]
        self._sentinel_arguments: dict[str, Any] = {
            **self._arguments,
            "db": 0,
            "username": _reveal(settings.sentinel_username),
            "password": _reveal(settings.sentinel_password),
        }

    @property
    def has_choice(self) -> bool:
        """Another server may take over at any time."""
        return True

    def _database(self, address: Address) -> int:
        return database(address.path.partition("/")[2], address.shown, _EXAMPLE)

    async def _reach(self, host: str, port: int | None) -> Connection:
        primary = await self._ask(host, port or _SENTINEL_PORT)
        return await connect(self._make, *primary, self._arguments, refuse_replica=True)

    async def _ask(self, host: str, port: int) -> tuple[str, int]:
        """Return where a sentinel says that the primary is."""
        shown = f"the sentinel {host}:{port}"
        question = (b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self._name)
        try:
            sentinel = await connect(
                Connection, host, port, self._sentinel_arguments, refuse_replica=False
            )
            try:
                await sentinel.send_command(*question)
                reply = await sentinel.read_response()
            finally:
                await sentinel.disconnect(nowait=True)
        except Exception as failure:
            if "unknown command" in str(failure):
                raise ConfigurationError(
                    f"{host}:{port} is no sentinel: name the server itself, as redis://host:port"
                ) from failure
            error = translate(failure, shown)
            if isinstance(error, AuthenticationError):
                error = AuthenticationError(f"{error} (see the setting sentinel_password)")
            raise error from failure
        if not reply:
            raise ConnectionLost(f"{shown} knows no primary called {self._name!r}")
        return reply[0].decode(), int(reply[1])


def _reveal(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()
