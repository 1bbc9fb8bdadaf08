"""From a message of a stream to a delivery."""

from __future__ import annotations

import contextlib

from nats.aio.msg import Msg

from catga.errors import ConfigurationError
from catga.spi import LEASE_MARGIN, Delivery, Kind, Source, Subject, parse_subject
from catga_nats.headers import carried, shown
from catga_nats.names import once_subject

__all__ = ["Reader", "ack_tokens"]


def ack_tokens(reply: str) -> tuple[int, str]:
    """Return the delivery count and the stream sequence that an ack subject names.

    `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>…`, or, with a domain, two tokens more
    before the stream. Source: nats-architecture-and-design ADR-15.
    """
    tokens = reply.split(".")
    first = 4 if len(tokens) == 9 else 6
    return int(tokens[first]), tokens[first + 1]


class Reader:
    """Reads for one source; its few subjects are parsed once."""

    def __init__(self, source: Source, lease: float, *, all_headers: bool = False) -> None:
        self._lease = lease * (1 - LEASE_MARGIN)
        self._all_headers = all_headers
        self.lease = lease
        """Seconds, as the server has it."""
        self._fallback = Subject(source.namespace, Kind.LOG, source.type)
        to = Subject(source.namespace, Kind.TO, source.type, source.group)
        self._subjects: dict[str, Subject] = {once_subject(to): to}

    def read(self, message: Msg, now: float) -> Delivery:
        """Return the delivery that came just now; its lease ends here before the server gives it
        to another."""
        subject = self._subjects.get(message.subject)
        if subject is None:
            subject = self._parse(message.subject)
        attempt, sequence = ack_tokens(message.reply)
        until = now + self._lease
        delivery = Delivery(subject, message.data, attempt, sequence, until, message.reply)
        if message.headers:
            before, delivery.replays = carried(message.headers)
            delivery.attempt += before
            delivery.headers = message.headers if self._all_headers else shown(message.headers)
        return delivery

    def _parse(self, text: str) -> Subject:
        whole, _, _ = text.rpartition(".")
        known = self._subjects.get(whole)
        if known is not None:  # one subject for each id: too many to keep
            return known
        try:
            subject = parse_subject(text)
        except ConfigurationError:
            with contextlib.suppress(ConfigurationError):
                return self._subjects.setdefault(whole, parse_subject(whole))
            return self._fallback  # stored from outside, e.g. with a partition that is not UTF-8
        self._subjects[text] = subject
        return subject
