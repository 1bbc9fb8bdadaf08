"""What the entry point names. It imports nothing heavy: the factory does, when it is called."""

from __future__ import annotations

from typing import Any

import attrs

from catga.plugins import hookimpl
from catga.spi import Address, Capability, Transport, TransportDescriptor

__all__ = ["SampleSettings", "catga_transports"]


@attrs.frozen
class SampleSettings:
    """What can be set: in code, as `sample://?buffer=9`, or as `CATGA_SAMPLE_BUFFER=9`."""

    buffer: int = attrs.field(default=1000, validator=attrs.validators.ge(1))
    """So many messages wait for one listener; further ones are lost, as QoS 0 may."""


def _transport(address: Address, settings: Any, explicit: frozenset[str]) -> Transport:
    from catga_sample.transport import SampleTransport  # noqa: PLC0415 - only when it is used

    del address, explicit
    return SampleTransport(settings)


@hookimpl
def catga_transports() -> list[TransportDescriptor]:
    """Describe the one transport."""
    return [
        TransportDescriptor(
            name="sample",
            schemes=("sample",),
            factory=_transport,
            settings=SampleSettings,
            capabilities=frozenset({Capability.AT_MOST_ONCE}),
        )
    ]
