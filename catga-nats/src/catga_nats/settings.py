"""What can be set on the NATS transport: keys of the URL query, the environment and code."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Any

import attrs
from attrs import validators

__all__ = ["NatsSettings", "Storage", "nanoseconds"]


class Storage(StrEnum):
    """Where a stream keeps its messages."""

    FILE = "file"
    MEMORY = "memory"


def nanoseconds(duration: timedelta) -> int:
    """Return `duration` as JetStream writes it."""
    return (duration // timedelta(microseconds=1)) * 1000


def _positive(_: Any, attribute: attrs.Attribute[Any], value: timedelta | None) -> None:
    if value is not None and value <= timedelta(0):
        raise ValueError(f"{attribute.name} must be longer than nothing")


_at_least_one = validators.optional(validators.ge(1))


@attrs.frozen
class NatsSettings:
    """Settings of `nats://` and `tls://` URLs.

    What describes streams and consumers is imposed on the server only when somebody gave it;
    otherwise what the server has is adopted.
    """

    replicas: int = attrs.field(default=1, validator=validators.in_((1, 2, 3, 4, 5)))
    """Copies of each stream in a cluster."""
    storage: Storage = attrs.field(default=Storage.FILE, converter=Storage)
    """Can't be changed on an existing stream. `memory` breaks QoS 1 and 2 at a server restart."""
    max_age: timedelta | None = attrs.field(default=None, validator=_positive)
    """Older messages are removed even when nobody handled them; None keeps them."""
    max_bytes: int | None = attrs.field(default=None, validator=_at_least_one)
    """Beyond it new messages are refused (never an accepted one dropped); None sets no limit.

    nats-server 2.15 refuses it on a stream that already has message schedules."""
    duplicate_window: timedelta | None = attrs.field(default=None, validator=_positive)
    """How long one message id is stored once; None takes W of the bus."""
    ack_wait: timedelta | None = attrs.field(default=None, validator=_positive)
    """How long a delivery stays with its receiver; None takes the lease of the bus."""
    max_deliver: int | None = attrs.field(default=None, validator=_at_least_one)
    """The server's own limit of deliveries, which strands a message: a named risk; None sets no
    limit, the engine parks what comes too often."""
    max_ack_pending: int = attrs.field(default=2000, validator=validators.ge(1))
    """Unsettled deliveries per group and type, over all members; delayed retries beyond a part of
    it move aside."""
    live_buffer: int = attrs.field(default=65_536, validator=validators.ge(1))
    """QoS 0 messages kept per subscription; beyond it new ones are dropped and reported."""
    publish_ack_timeout: timedelta = attrs.field(default=timedelta(seconds=5), validator=_positive)
    """How long a confirmation is waited for before the outcome counts as unknown."""
    ping_interval: timedelta = attrs.field(default=timedelta(seconds=10), validator=_positive)
    """How often the connection is proven alive by a round trip."""
    credentials_file: str | None = None
    """A `.creds` file (JWT and seed)."""
    nkey_seed_file: str | None = None
    """A file that holds an nkey seed."""
    token: str | None = attrs.field(default=None, repr=False)
    """An authentication token."""
    tls_ca_file: str | None = None
    """Certificates to trust instead of the system's; also asks for TLS."""
    tls_cert_file: str | None = None
    """The client's own certificate; also asks for TLS."""
    tls_key_file: str | None = None
    """Its key, when it is not in the same file."""
    tls_first: bool = False
    """Shake hands before the server says anything (the server must be set to it)."""
