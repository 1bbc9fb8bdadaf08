"""The headers beside a body: what the broker reads, and what one copy hands on to the next."""

from __future__ import annotations

from collections.abc import Mapping

from catga.spi import Outgoing

__all__ = [
    "MESSAGE_ID",
    "carried",
    "direct_sequence",
    "header_block",
    "more_headers",
    "shown",
    "stored_id",
]

MESSAGE_ID = "Nats-Msg-Id"
_SEQUENCE = b"\r\nNats-Sequence: "
_ATTEMPTS = "Catga-Attempts"
_REPLAYS = "Catga-Replays"
_RESERVED = ("nats-", "catga-")
_MOST_DIGITS = 9


def stored_id(outgoing: Outgoing) -> str:
    """Return the id under which the stream stores this message once.

    The window of a stream spans its subjects: the id alone would swallow a `send` of the same
    message to another group.
    """
    return f"{outgoing.subject.text}/{outgoing.message_id}"


def more_headers(outgoing: Outgoing) -> dict[str, str]:
    """Return what a stored message is published with beside its id: nothing, almost always."""
    headers: dict[str, str] = {}
    if outgoing.attempts:
        headers[_ATTEMPTS] = str(outgoing.attempts)
    if outgoing.replays:
        headers[_REPLAYS] = str(outgoing.replays)
    return headers


def header_block(message_id: str, more: Mapping[str, str]) -> bytes:
    """Return the headers of a stored message as they stand on the wire."""
    text = f"NATS/1.0\r\n{MESSAGE_ID}: {_one_line(message_id)}\r\n"
    for name, value in more.items():
        text += f"{name}: {_one_line(value)}\r\n"
    return f"{text}\r\n".encode("utf-8", "surrogateescape")


def _one_line(value: str) -> str:
    """Some of it comes from whoever can write to a stream: a line break would end the block."""
    return value if value.isprintable() else "".join(filter(str.isprintable, value))


def carried(headers: Mapping[str, str]) -> tuple[int, int]:
    """Return the attempts and the replays that this copy carries on."""
    return _number(headers.get(_ATTEMPTS, "")), _number(headers.get(_REPLAYS, ""))


def direct_sequence(head: bytes) -> str:
    """Return the sequence of a stored message that a direct get brought; empty: it is a status.

    The server writes it behind the message's own headers, among which anything may stand.
    """
    _, found, rest = head.rpartition(_SEQUENCE)
    return rest.partition(b"\r\n")[0].decode() if found else ""


def shown(headers: Mapping[str, str]) -> Mapping[str, str] | None:
    """Return what is not between the broker and us; None when there is nothing."""
    return {
        key: value for key, value in headers.items() if not key.lower().startswith(_RESERVED)
    } or None


def _number(text: str) -> int:
    """Anybody can write a header: what is no number counts for nothing."""
    plain = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    return int(text) if plain else 0
