"""Identifiers: time-ordered for messages, short for instances."""

from __future__ import annotations

import re
import secrets

import uuid_utils

from catga.errors import ConfigurationError

__all__ = ["MESSAGE_ID_LIMIT", "check_message_id", "new_instance", "new_message_id"]

MESSAGE_ID_LIMIT = 128
_PRINTABLE = re.compile(r"[\x21-\x7e]+")


def new_message_id() -> str:
    """Return a fresh, time-ordered UUID (version 7) as text."""
    return str(uuid_utils.uuid7())


def new_instance() -> str:
    """Return 16 random hexadecimal digits: a name for one bus in one process."""
    return secrets.token_hex(8)


def check_message_id(message_id: str) -> str:
    """Return `message_id` when it can travel everywhere.

    Raises `ConfigurationError` unless it is 1 to 128 printable ASCII characters without spaces.
    """
    if len(message_id) <= MESSAGE_ID_LIMIT and _PRINTABLE.fullmatch(message_id):
        return message_id
    raise ConfigurationError(
        f"a message id is 1 to {MESSAGE_ID_LIMIT} printable ASCII characters without spaces, "
        f"not {message_id[:40]!r}"
    )
