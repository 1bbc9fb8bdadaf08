"""What the entry point names. It imports nothing heavy: the factory does, when it is called."""

from __future__ import annotations

from datetime import timedelta

import attrs
from attrs import validators

from catga.plugins import hookimpl
from catga.spi import Address, Capability, Transport, TransportDescriptor

_ABLE = "at-most-once at-least-once exactly-once live-groups commit no-responders"
CAPABILITIES = frozenset(map(Capability, _ABLE.split()))


@attrs.frozen
class SampleSettings:
    """In code, as `sample:///a/file.db?fsync=true`, or as `CATGA_SAMPLE_FSYNC=true`."""

    poll_interval: timedelta = attrs.field(
        default=timedelta(milliseconds=50), validator=validators.gt(timedelta(0))
    )
    """How often to look for what other processes wrote; this one wakes its own readers at once."""
    fsync: bool = False
    """False: what was accepted survives the death of every process. True: a power cut as well."""
    max_payload_bytes: int = attrs.field(default=8 * 2**20, validator=validators.ge(1))
    """The largest body; SQLite itself takes up to 1 000 000 000 (sqlite.org/limits.html)."""
    live_buffer: int = attrs.field(default=1000, validator=validators.ge(1))
    """QoS 0 messages kept for one slow listener; beyond it new ones are dropped and reported."""


def _build(address: Address, settings: SampleSettings, explicit: frozenset[str]) -> Transport:
    from catga_sample.transport import SampleTransport  # noqa: PLC0415 - only when it is used

    return SampleTransport(address, settings)  # the file has no settings to disagree with these


@hookimpl
def catga_transports() -> list[TransportDescriptor]:
    """Offer the scheme `sample`."""
    return [TransportDescriptor("sample", ("sample",), _build, SampleSettings, CAPABILITIES)]
