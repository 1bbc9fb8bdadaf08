"""The headers beside a body: what the broker reads, and what one copy hands on to the next."""

from __future__ import annotations

from collections.abc import Mapping

from catga.spi import Outgoing

__all__ = ["MESSAGE_ID", "carried", "frame_bytes", "shown", "stored_headers"]

MESSAGE_ID = "Nats-Msg-Id"
_ATTEMPTS = "Catga-Attempts"
_REPLAYS = "Catga-Replays"
_RESERVED = ("nats-", "catga-")
_FRAME_BYTES = len("NATS/1.0\r\n\r\n")
_MOST_DIGITS = 9


def stored_headers(outgoing: Outgoing) -> dict[str, str]:
    """Return what a stored message is published with.

    The window of a stream spans its subjects: the id alone would swallow a `send` of the same
    message to another group.
    """
    headers = {MESSAGE_ID: f"{outgoing.subject.text}/{outgoing.message_id}"}
    if outgoing.attempts:
        headers[_ATTEMPTS] = str(outgoing.attempts)
    if outgoing.replays:
        headers[_REPLAYS] = str(outgoing.replays)
    return headers


def frame_bytes(headers: Mapping[str, str]) -> int:
    """Return how many bytes these headers take on the wire."""
    return _FRAME_BYTES + sum(len(key) + len(value) + 4 for key, value in headers.items())


def carried(headers: Mapping[str, str]) -> tuple[int, int]:
    """Return the attempts and the replays that this copy carries on."""
    return _number(headers.get(_ATTEMPTS, "")), _number(headers.get(_REPLAYS, ""))


def shown(headers: Mapping[str, str]) -> Mapping[str, str] | None:
    """Return what is not between the broker and us; None when there is nothing."""
    return {
        key: value for key, value in headers.items() if not key.lower().startswith(_RESERVED)
    } or None


def _number(text: str) -> int:
    """Anybody can write a header: what is no number counts for nothing."""
    plain = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    return int(text) if plain else 0
