"""One connection to NATS: opened within a deadline, kept alive, its changes told."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from catga.errors import (
    AuthenticationError,
    CapabilityError,
    ConfigurationError,
    ConnectionLost,
)
from catga.spi import Address, EventKind, Runtime, TransportEvent, end_all
from catga_nats.client import GuardedClient
from catga_nats.errors import cannot_connect, is_final
from catga_nats.mux import Mux
from catga_nats.settings import NatsSettings

__all__ = ["MINIMUM_VERSION", "Connection", "parse_version"]

MINIMUM_VERSION = (2, 10)
"""Consumers with several filters. Source: NATS 2.10 release notes, docs.nats.io."""

_CLOSE_SECONDS = 2.0
_ANSWER_SECONDS = 5.0
_REMEMBERED = 100
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


def parse_version(text: str) -> tuple[int, int, int]:
    """Return the server's version. Raises `CapabilityError` unless it is 2.10 or later."""
    found = _VERSION.match(text)
    version = (int(found[1]), int(found[2]), int(found[3])) if found else (0, 0, 0)
    if version[:2] < MINIMUM_VERSION:
        raise CapabilityError(f"nats-server {text or '(unknown)'} is too old: 2.10 is needed")
    return version


class Connection:
    """A guarded client, the table of its requests, and who wants to know of its ups and downs."""

    def __init__(self, address: Address, settings: NatsSettings, runtime: Runtime) -> None:
        self._address = address
        self._settings = settings
        self._runtime = runtime
        self._refused: asyncio.Future[Exception] | None = None
        self._last_error: BaseException | None = None
        self._closing = False
        self._denied: deque[str] = deque(maxlen=_REMEMBERED)
        self.on_reconnected: list[Callable[[], Awaitable[None]]] = []
        self.client = GuardedClient(require_tls=_wants_tls(address, settings))
        self.version = (0, 0, 0)
        self.mux: Mux
        self.server_restarted = False
        """Whether the last reconnect met a new process: JetStream writes down late what a consumer
        has handed out, so that one which was killed gives some of it to another at once."""
        self._server_id = ""

    async def open(self) -> None:
        """Connect within the deadline of the runtime, then subscribe to answers."""
        refused = self._refused = asyncio.get_running_loop().create_future()
        connecting = asyncio.ensure_future(self.client.connect(**self._options()))
        try:
            await self._connected(connecting, refused)
            self._refused = None
            self.version = parse_version(self.client.server_version)
            self._server_id = self.client.server_id
            self.mux = Mux(self.client, self._runtime.clock)
            await self.mux.start()
        except BaseException:
            await end_all([connecting])
            await self.close()
            raise
        self._runtime.spawn(self._keep(), "catga-nats-keeper")
        self.emit(EventKind.CONNECTED, self._address.shown)

    async def _connected(
        self, connecting: asyncio.Future[None], refused: asyncio.Future[Exception]
    ) -> None:
        """Wait for it, for the deadline, or for an error that trying again will not heal."""
        seconds = self._runtime.connect_deadline
        either: set[asyncio.Future[Any]] = {connecting, refused}
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if refused.done():  # `_last_error` may be the reset that followed the refusal
            error: BaseException | None = refused.result()
        else:
            error = connecting.exception() if connecting.done() else self._last_error
        if error is not None or not connecting.done():
            raise cannot_connect(self._address.shown, error, seconds) from error

    async def close(self) -> None:
        """Flush what is waiting, within a bound, and disconnect. Idempotent."""
        self._closing = True
        await self.client.end(_CLOSE_SECONDS)

    def emit(self, kind: EventKind, detail: str) -> None:
        """Tell the bus."""
        self._runtime.emit(TransportEvent(kind, detail))

    async def _keep(self) -> None:
        seconds = self._settings.ping_interval.total_seconds()
        while not self._closing:
            await self._runtime.clock.sleep(seconds)
            if self._closing or not self.client.is_connected:
                continue
            if not await self.client.answers(max(seconds / 2, 1.0)):
                self.emit(EventKind.TROUBLE, f"{self._address.shown} does not answer")
                await self.client.start_again()

    def _options(self) -> dict[str, Any]:
        settings, address = self._settings, self._address
        for name in ("credentials_file", "nkey_seed_file"):
            _check_file(settings, name)
            if getattr(settings, name) and importlib.util.find_spec("nkeys") is None:
                raise ConfigurationError(f"{name} needs the package nkeys: pip install nkeys")
        options = GuardedClient.own_options()
        options |= {
            "servers": [
                f"nats://{f'[{host}]' if ':' in host else host}:{port or 4222}"
                for host, port in address.hosts or (("127.0.0.1", None),)
            ],
            "name": self._runtime.service,
            "connect_timeout": self._runtime.connect_deadline,
            "ping_interval": settings.ping_interval.total_seconds(),
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnected,
            "reconnected_cb": self._on_reconnected,
            "user_credentials": settings.credentials_file,
            "nkeys_seed": settings.nkey_seed_file,
            "token": settings.token,
        }
        if address.password is not None and address.username is not None:
            options["user"] = address.username.reveal()
            options["password"] = address.password.reveal()
        elif address.username is not None:
            options["token"] = address.username.reveal()
        if _wants_tls(address, settings):
            options["tls"] = _tls_context(settings)
            options["tls_handshake_first"] = settings.tls_first
        return options

    # An error that one of these raises would end the client's reader or its reconnecting.

    async def _on_error(self, error: Exception) -> None:
        known, self._last_error = self._last_error, error
        words = str(error).lower()
        if self._refused is not None:
            if is_final(error) and not self._refused.done():
                self._refused.set_result(error)
        elif "permissions violation" in words:
            self._denied.append(words)
            self.mux.deny(words)
            self.emit(EventKind.TROUBLE, str(error))
        elif repr(known) != repr(error) and not self._closing:  # once, not per try to reconnect
            self.emit(EventKind.TROUBLE, f"{self._address.shown}: {error!r}")

    async def _on_disconnected(self) -> None:
        if hasattr(self, "mux"):
            self.mux.fail_all()
            if not self._closing:
                self.emit(EventKind.DISCONNECTED, self._address.shown)

    async def _on_reconnected(self) -> None:
        before, self._server_id = self._server_id, self.client.server_id
        self.server_restarted = before != self._server_id
        self.emit(EventKind.CONNECTED, self._address.shown)
        for listener in tuple(self.on_reconnected):
            try:
                await listener()
            except Exception as error:
                self.emit(EventKind.TROUBLE, f"after reconnecting: {error!r}")

    async def confirm(self, subject: str) -> None:
        """Return once the server has taken in what was sent before.

        Raises `AuthenticationError` when it does not permit to subscribe to `subject`.
        """
        if not await self.client.answers(_ANSWER_SECONDS):
            raise ConnectionLost(f"{self._address.shown} does not answer")
        if any(f'"{subject.lower()}"' in words for words in self._denied):
            raise AuthenticationError(f"the server does not permit subscribing to {subject}")


def _wants_tls(address: Address, settings: NatsSettings) -> bool:
    named = settings.tls_ca_file or settings.tls_cert_file or settings.tls_first
    return address.scheme == "tls" or bool(named)


def _check_file(settings: NatsSettings, name: str) -> None:
    path = getattr(settings, name)
    if path and not Path(path).is_file():
        raise ConfigurationError(f"{name}: there is no file {path}")


def _tls_context(settings: NatsSettings) -> ssl.SSLContext:
    for name in ("tls_ca_file", "tls_cert_file", "tls_key_file"):
        _check_file(settings, name)
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file)
        if settings.tls_cert_file:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(f"the TLS files cannot be used: {error}") from error
    return context
