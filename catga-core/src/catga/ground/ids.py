"""Identifiers: time-ordered for messages, short for instances."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextvars import ContextVar
from hashlib import blake2b

from uuid_utils import uuid7 as _uuid7

from catga.errors import ConfigurationError

__all__ = [
    "MESSAGE_ID_LIMIT",
    "NEXT_ID",
    "check_message_id",
    "derived_ids",
    "ids_of_now",
    "is_message_id",
    "new_instance",
    "new_message_id",
    "next_message_id",
]

MESSAGE_ID_LIMIT = 128
_TAILS = tuple(f"{number:03x}" for number in range(4096))

NEXT_ID: ContextVar[Callable[[], str] | None] = ContextVar("catga_next_id", default=None)
"""Where ids come from here, when they are not to be new ones."""


def new_message_id() -> str:
    """Return a fresh, time-ordered UUID (version 7) as text."""
    return str(_uuid7())


def ids_of_now() -> Callable[[], str]:
    """Return what gives up to 4 096 fresh ids in their order: they differ in the last digits, and
    the rest is made once."""
    return map(new_message_id()[: -len(_TAILS[0])].__add__, _TAILS).__next__


def next_message_id() -> str:
    """Return the id of the next message made here: the same one in every run, where ids are
    derived, else a fresh one."""
    derive = NEXT_ID.get()
    return str(_uuid7()) if derive is None else derive()


def derived_ids(*origin: str) -> Callable[[], str]:
    """Return what gives one id after the other; the same series for the same `origin`, which is
    of words without control characters."""
    made = 0

    def derive() -> str:
        nonlocal made
        made += 1
        return blake2b("\0".join((*origin, str(made))).encode(), digest_size=16).hexdigest()

    return derive


def new_instance() -> str:
    """Return 16 random hexadecimal digits: a name for one bus in one process."""
    return secrets.token_hex(8)


def is_message_id(text: str) -> bool:
    """Say whether it is 1 to 128 printable ASCII characters without spaces."""
    # Asked in words: a pattern takes three times as long, and it is asked per message.
    printable = text.isascii() and text.isprintable() and " " not in text
    return printable and 0 < len(text) <= MESSAGE_ID_LIMIT


def check_message_id(message_id: str) -> str:
    """Return `message_id` when it can travel everywhere.

    Raises `ConfigurationError` unless it is 1 to 128 printable ASCII characters without spaces.
    """
    if is_message_id(message_id):
        return message_id
    raise ConfigurationError(
        f"a message id is 1 to {MESSAGE_ID_LIMIT} printable ASCII characters without spaces, "
        f"not {message_id[:40]!r}"
    )
