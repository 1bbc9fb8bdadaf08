"""The entry point: one frozen descriptor, nothing heavy imported."""

from __future__ import annotations

from collections.abc import Sequence

from catga.plugins import hookimpl
from catga.spi import Address, Capability, Transport, TransportDescriptor
from catga_inmemory.settings import MemorySettings

__all__ = ["CAPABILITIES", "catga_transports"]

CAPABILITIES = frozenset(Capability) - {Capability.COMMANDS}


def _build(address: Address, settings: MemorySettings, explicit: frozenset[str]) -> Transport:
    from catga_inmemory.transport import MemoryTransport  # noqa: PLC0415 - only when it is used

    # Memory is dear: nothing stays for a day only because that is what brokers are asked for.
    return MemoryTransport(address, settings, keeps="retention" in explicit)


@hookimpl
def catga_transports() -> Sequence[TransportDescriptor]:
    """Offer the scheme `inmemory`."""
    return (
        TransportDescriptor(
            name="inmemory",
            schemes=("inmemory",),
            factory=_build,
            settings=MemorySettings,
            capabilities=CAPABILITIES,
            waits_for_handlers=True,
            in_process=True,
        ),
    )
