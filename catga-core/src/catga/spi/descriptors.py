"""What a plugin hands over: frozen descriptions, collected once at start-up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from catga.model.capability import Capability
from catga.spi.address import Address
from catga.spi.transport import Transport

__all__ = ["SPI_VERSION", "CommandDescriptor", "TransportDescriptor"]

SPI_VERSION = 1


@attrs.frozen
class TransportDescriptor:
    """One transport. The client library is imported by `factory`, not by the plugin's module."""

    name: str
    """Short and unique, e.g. `nats`; its settings read `CATGA_<NAME>_<KEY>`."""
    schemes: tuple[str, ...]
    """The URL schemes it claims."""
    factory: Callable[[Address, Any, frozenset[str]], Transport]
    """Called with the address, an instance of `settings`, and the names of those settings that
    somebody gave (in code, URL or environment): only these are imposed on what the server already
    has, defaults never are. Connects nothing yet."""
    settings: type
    """An attrs class, a default for every field; its field names are the keys of URL query,
    environment and code."""
    capabilities: frozenset[Capability]
    """What it can do at best; the connected server decides (`Transport.capabilities`)."""
    spi_version: int = SPI_VERSION
    waits_for_handlers: bool = False
    """The default of the setting `wait_handled`."""
    in_process: bool = False
    """It lives in the memory of this process and knows no time but the clock it is lent; a URL
    with nothing behind `://` is private to one bus."""


@attrs.frozen
class CommandDescriptor:
    """One command of the `catga` program; `load` returns a click command."""

    name: str
    load: Callable[[], Any]
