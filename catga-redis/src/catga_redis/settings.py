"""What can be set on the Redis transport: a default for everything."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import attrs
from attrs import validators

from catga.spi import Secret

__all__ = ["RedisSettings"]


def _positive(_: object, attribute: attrs.Attribute[Any], value: timedelta | None) -> None:
    if value is not None and value <= timedelta(0):
        raise ValueError(f"{attribute.name} must be more than zero")


_at_least_one = validators.optional(validators.ge(1))


@attrs.frozen
class RedisSettings:
    """Settings of `redis://`, `redis+sentinel://` and `redis+cluster://` URLs."""

    max_length: int | None = attrs.field(default=None, validator=_at_least_one)
    """About how many entries a type's streams keep. A named risk: Redis trims what no group has
    settled, and what is trimmed is lost. None: only what `trim_interval` says goes."""
    max_payload_bytes: int | None = attrs.field(default=None, validator=_at_least_one)
    """A limit below the server's own `proto-max-bulk-len`."""
    pending_timeout: timedelta | None = attrs.field(default=None, validator=_positive)
    """After this time an unsettled delivery goes to another member. None: the bus's lease."""
    read_count: int = attrs.field(default=500, validator=validators.ge(1))
    """At most so many entries of one stream in one read."""
    block_time: timedelta = attrs.field(default=timedelta(seconds=5), validator=_positive)
    """How long one read waits at the server for something new."""
    reclaim_interval: timedelta = attrs.field(default=timedelta(seconds=1), validator=_positive)
    """How often a member looks for what others gave back or died with."""
    trim_interval: timedelta | None = attrs.field(
        default=timedelta(seconds=60), validator=_positive
    )
    """How often a member removes what every group has settled and what is older than both the
    bus's `retention` and its `dedupe_window`. None: it removes nothing."""
    reply_timeout: timedelta = attrs.field(default=timedelta(seconds=5), validator=_positive)
    """A server that is silent for longer counts as lost: reconnect, outcome unknown."""
    claim_time: timedelta = attrs.field(default=timedelta(seconds=15), validator=_positive)
    """How long the server remembers which member of a group took a QoS 0 message. A member that
    lags behind by more than two thirds of it drops what it missed and says so."""
    live_buffer: int = attrs.field(default=10_000, validator=validators.ge(1))
    """QoS 0 messages kept for one slow listener; beyond it new ones are dropped and reported."""
    tls_ca_file: str | None = None
    """Certificates of the authorities to trust instead of the system's (`rediss`)."""
    tls_cert_file: str | None = None
    """The client's own certificate (`rediss`)."""
    tls_key_file: str | None = None
    """The key of `tls_cert_file` (`rediss`)."""
    sentinel_username: Secret | None = None
    """Whom the sentinels are asked as (`redis+sentinel`); the user of the URL is the server's."""
    sentinel_password: Secret | None = None
    """The password of the sentinels, if they have one (`redis+sentinel`)."""
