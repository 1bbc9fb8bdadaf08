"""The entry point: one frozen descriptor, nothing heavy imported."""

from __future__ import annotations

from collections.abc import Sequence

from catga.plugins import hookimpl
from catga.spi import Address, Capability, Transport, TransportDescriptor
from catga_redis.settings import RedisSettings

__all__ = ["CAPABILITIES", "CLUSTER_SCHEMES", "catga_transports"]

CAPABILITIES = frozenset(Capability) - {Capability.HANDLED}
CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster")


def _build(address: Address, settings: RedisSettings, explicit: frozenset[str]) -> Transport:
    from catga_redis.transport import RedisTransport  # noqa: PLC0415 - redis only when it is used

    return RedisTransport(address, settings, explicit)


@hookimpl
def catga_transports() -> Sequence[TransportDescriptor]:
    """Offer one server, alone or found through Sentinel, and a cluster."""
    return (
        TransportDescriptor(
            name="redis",
            schemes=("redis", "rediss", "redis+sentinel", *CLUSTER_SCHEMES),
            factory=_build,
            settings=RedisSettings,
            capabilities=CAPABILITIES,
        ),
    )
