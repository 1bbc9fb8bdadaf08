"""The entry point: one frozen descriptor; the client library is imported by the factory."""

from __future__ import annotations

from collections.abc import Sequence

from catga.plugins import hookimpl
from catga.spi import Address, Capability, Transport, TransportDescriptor
from catga_nats.settings import NatsSettings

__all__ = ["catga_transports"]

CAPABILITIES = frozenset(
    {
        Capability.AT_MOST_ONCE,
        Capability.AT_LEAST_ONCE,
        Capability.EXACTLY_ONCE,
        Capability.ATOMIC,
        Capability.ATOMIC_PUBLISH,
        Capability.DEAD_LETTERS,
        Capability.DELAY,
        Capability.DISCOVERY,
        Capability.FOREVER,
        Capability.LIVE_GROUPS,
        Capability.NO_RESPONDERS,
    }
)


def _build(address: Address, settings: NatsSettings, explicit: frozenset[str]) -> Transport:
    from catga_nats.transport import NatsTransport  # noqa: PLC0415 - 150 ms, only when it is used

    return NatsTransport(address, settings, explicit)


@hookimpl
def catga_transports() -> Sequence[TransportDescriptor]:
    """Offer the schemes `nats` and `tls`."""
    return (
        TransportDescriptor(
            name="nats",
            schemes=("nats", "tls"),
            factory=_build,
            settings=NatsSettings,
            capabilities=CAPABILITIES,
        ),
    )
