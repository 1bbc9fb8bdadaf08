"""From a message of a stream to a delivery."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable

from catga.errors import ConfigurationError
from catga.spi import LEASE_MARGIN, Delivery, Kind, Source, Subject, parse_subject
from catga_nats.headers import carried, shown
from catga_nats.names import once_subject
from catga_nats.parser import Message

__all__ = ["Reader", "ack_tokens"]

_log = logging.getLogger("catga.nats")


def ack_tokens(reply: bytes) -> tuple[int, str]:
    """Return the delivery count and the stream sequence that an ack subject names.

    `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>…`, or, with a domain, two tokens more
    before the stream. Source: nats-architecture-and-design ADR-15.
    """
    first = 4 if reply.count(b".") == 8 else 6
    tokens = reply.split(b".", first + 2)
    return int(tokens[first]), tokens[first + 1].decode()


class Reader:
    """Reads for one source; its few subjects are parsed once."""

    def __init__(self, source: Source, lease: float, *, all_headers: bool = False) -> None:
        self._lease = lease * (1 - LEASE_MARGIN)
        self._all_headers = all_headers
        self.lease = lease
        """Seconds, as the server has it."""
        self._fallback = Subject(source.namespace, Kind.LOG, source.type)
        to = Subject(source.namespace, Kind.TO, source.type, source.group)
        self._subjects: dict[bytes, Subject] = {once_subject(to).encode(): to}

    def read(self, messages: Iterable[Message], now: float) -> list[Delivery]:
        """Return the deliveries that came just now; their leases end here before the server gives
        them to another."""
        until = now + self._lease
        known = self._subjects.get
        deliveries = []
        for message in messages:
            subject = known(message.subject) or self._parse(message.subject)
            try:
                attempt, sequence = ack_tokens(message.reply)
            except (ValueError, IndexError):  # nobody but an outsider sends such a thing
                _log.warning("a message on %r with a malformed reply: ignored", message.subject)
                continue
            delivery = Delivery(subject, message.data, attempt, sequence, until, message.reply)
            if message.headers:
                before, delivery.replays = carried(message.headers)
                delivery.attempt += before
                delivery.headers = message.headers if self._all_headers else shown(message.headers)
            deliveries.append(delivery)
        return deliveries

    def _parse(self, name: bytes) -> Subject:
        whole, _, _ = name.rpartition(b".")
        known = self._subjects.get(whole)
        if known is not None:  # one subject for each id: too many to keep
            return known
        with contextlib.suppress(ConfigurationError, UnicodeDecodeError):
            subject = self._subjects[name] = parse_subject(name.decode())
            return subject
        with contextlib.suppress(ConfigurationError, UnicodeDecodeError):
            subject = self._subjects[whole] = parse_subject(whole.decode())
            return subject
        return self._fallback  # stored from outside, e.g. with a partition that is not UTF-8
