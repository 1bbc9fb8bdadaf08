"""Where the completion records are kept when it is not beside the messages."""

from __future__ import annotations

import os

from catga.engine.elsewhere import RecordsElsewhere
from catga.errors import CapabilityError, ConfigurationError
from catga.plugins import Catalog
from catga.settings import parse_url, resolve_settings
from catga.spi import Transport, TransportDescriptor

__all__ = ["with_records_at"]

_RISK = "inbox"


def with_records_at(
    url: str,
    messages: Transport,
    descriptor: TransportDescriptor,
    catalog: Catalog,
    accept_risk: frozenset[str] = frozenset(),
) -> Transport:
    """Return `messages` (of `descriptor`) with its completion records in another transport.

    `url` may have settings of that transport in its query. Raises `ConfigurationError` for a
    setting of the bus there, `CapabilityError` for records that are forgotten with this process
    while the messages are not, unless the risk `inbox` is accepted.
    """
    address, query = parse_url(url)
    other = catalog.transport_for(address.scheme)
    resolved = resolve_settings(other, query, os.environ, {}, others=catalog.settings_names)
    foreign = sorted(query.keys() & resolved.core_keys)
    if foreign:
        raise ConfigurationError(
            f"{', '.join(foreign)} in the URL of the inbox: settings of the bus go with its own URL"
        )
    if other.in_process and not descriptor.in_process and _RISK not in accept_risk:
        raise CapabilityError(
            f"inbox={address.shown}: the records of what was completed end with this process, the "
            f'messages do not: use a broker for them (or accept_risk=["{_RISK}"])'
        )
    records = other.factory(address, resolved.transport, resolved.explicit)
    return RecordsElsewhere(messages, records, address.shown)
