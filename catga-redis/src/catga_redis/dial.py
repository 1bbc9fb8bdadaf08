"""Making one connection: address, credentials, TLS, deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import ReadOnlyError

from catga.errors import AuthenticationError, CatgaError, ConfigurationError, ConnectionLost
from catga.spi import Address, Runtime, Secret, end_all
from catga_redis.errors import REPLY_ERRORS, InClear, is_final, translate, was_hung_up
from catga_redis.settings import RedisSettings

__all__ = ["Dialer", "connect", "database"]

_DEFAULT_PORT = 6379
_PAUSE = 0.1
_HANDSHAKE_SECONDS = 0.5
"""So long a server may take to speak TLS before it is asked whether it speaks in clear."""


class Dialer:
    """Knows how to reach one server; makes connections that are owned by whoever asked."""

    def __init__(self, address: Address, settings: RedisSettings) -> None:
        self.where = address.shown
        self._address = address
        self._demoted = False
        self._arguments: dict[str, Any] = {
            "db": self._database(address),
            "username": _reveal(address.username),
            "password": _reveal(address.password),
            # Both a timeout object per reply (a third of the throughput) and redis-py's own retry
            # (it stores an XADD twice when only the reply was lost) stay off.
            "socket_timeout": None,
            "socket_connect_timeout": None,  # whoever asks bounds the whole of it
            "retry": None,
            "protocol": 2,
        }
        self._make: Callable[..., Connection] = Connection
        if address.scheme.startswith("rediss"):
            self._make = SSLConnection
            self._arguments |= {
                "ssl_ca_certs": settings.tls_ca_file,
                "ssl_certfile": settings.tls_cert_file,
                "ssl_keyfile": settings.tls_key_file,
            }

    def _database(self, address: Address) -> int:
        return database(address.path, address.shown, "redis://host/0")

    @property
    def has_choice(self) -> bool:
        """Whether another server may be in charge: of several hosts, or behind the name of one that
        was seen to be a replica."""
        return self._demoted or len(self._address.hosts) > 1

    @property
    def leaves_on(self) -> tuple[type[Exception], ...]:
        """The error replies that say: another server is in charge now."""
        return (ReadOnlyError,)

    def told(self, reply: Exception) -> None:
        """Learn from such a reply."""
        del reply
        self._demoted = True

    def _hosts(self) -> Sequence[tuple[str, int | None]]:
        return self._address.hosts or (("localhost", None),)

    async def dial(self, timeout: float) -> Connection:
        """Return a connection that is authenticated, to the first host that answers.

        Where there is a choice replicas are passed over: they answer, and refuse every write.

        Raises `ConnectionLost` or `AuthenticationError`. Cancelled: nothing stays open.
        """
        error: CatgaError | None = None
        hosts = self._hosts()
        for host, port in hosts:
            try:
                async with asyncio.timeout(timeout / len(hosts)):
                    return await self._reach(host, port)
            except Exception as failure:
                error = translate(failure, self.where)
                if isinstance(error, AuthenticationError):
                    break
        raise error or ConnectionLost(f"{self.where} names no host")

    async def _reach(self, host: str, port: int | None) -> Connection:
        """Return a connection to the server that this host leads to."""
        at = port or _DEFAULT_PORT
        return await connect(self._make, host, at, self._arguments, refuse_replica=self.has_choice)

    async def dial_until(self, runtime: Runtime) -> Connection:
        """Dial again and again until the connect deadline.

        What trying again cannot heal fails at once: a wrong password, no TLS, another protocol.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + runtime.connect_deadline
        while True:
            left = deadline - loop.time()
            try:
                return await self.dial(max(left, 0.01))
            except ConnectionLost as error:
                if is_final(error):
                    raise
                if loop.time() + _PAUSE >= deadline:
                    if self._make is Connection and was_hung_up(error):
                        raise ConnectionLost(f"{error} If it wants TLS: use rediss://") from error
                    raise
            await asyncio.sleep(_PAUSE)


async def connect(
    make: Callable[..., Connection],
    host: str,
    port: int,
    arguments: dict[str, Any],
    *,
    refuse_replica: bool,
) -> Connection:
    """Return an authenticated connection; the caller bounds the time.

    Raises what the client raises, and `ConnectionLost` for a replica that is not wanted. Failed or
    cancelled: nothing stays open.
    """
    connection = make(host=host, port=port, **arguments)
    try:
        if isinstance(connection, SSLConnection):
            await _connect_over_tls(connection, host, port)
        else:
            await connection.connect()  # type: ignore[no-untyped-call]  # the client's
        if refuse_replica:
            await _refuse_replica(connection, f"{host}:{port}")
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


async def _connect_over_tls(connection: Connection, host: str, port: int) -> None:
    """Connect; raise `InClear` for a server that does not speak TLS.

    Such a one takes the greeting for the beginning of a command, and waits for its end.
    """
    connecting: asyncio.Task[None] = asyncio.ensure_future(
        connection.connect()  # type: ignore[no-untyped-call]  # the client's
    )
    try:
        await asyncio.wait([connecting], timeout=_HANDSHAKE_SECONDS)
        if not connecting.done() and await _answers_in_clear(host, port):
            raise InClear
        await connecting
    finally:
        await end_all([connecting])


async def _answers_in_clear(host: str, port: int) -> bool:
    """Ask with a bare PING, which holds no secret: a pong, or an error for lack of a password."""
    try:
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"PING\r\n")
                return (await reader.read(5)).startswith((b"+PONG", b"-"))
            finally:
                writer.transport.abort()
    except OSError:  # and so is `TimeoutError`
        return False


async def _refuse_replica(connection: Connection, shown: str) -> None:
    """Raise `ConnectionLost` for a replica. Source: redis.io, command ROLE (read for 7.2)."""
    await connection.send_command(b"ROLE")
    try:
        role = (await connection.read_response())[0]
    except REPLY_ERRORS:
        return  # not permitted to ask, or still loading: whoever uses it will see
    if role == b"slave":
        raise ConnectionLost(f"{shown} is a replica")


def _reveal(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()


def database(word: str, shown: str, example: str) -> int:
    """Return the number of a database. Raises `ConfigurationError`."""
    if not word:
        return 0
    if word.isdecimal():
        return int(word)
    raise ConfigurationError(f"the path of {shown} must be a database number, as in {example}")
