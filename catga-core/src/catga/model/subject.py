"""Subjects: where a message goes. One validated grammar for every transport."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache

import attrs

from catga.errors import ConfigurationError

__all__ = ["TOKEN_LIMIT", "Kind", "Subject", "check_token", "parse_subject"]

TOKEN_LIMIT = 64
_TOKEN = re.compile(rf"[A-Za-z0-9_-]{{1,{TOKEN_LIMIT}}}")


class Kind(StrEnum):
    """The families of subjects. `LOG`, `TO`, `REDO` and `DEAD` are stored, the others never are."""

    LIVE = "live"
    """QoS 0, to every listener and to one member of each group."""
    LIVE_TO = "live-to"
    """QoS 0, to one member of one group."""
    LOG = "log"
    """QoS 1 and 2, to every group."""
    TO = "to"
    """QoS 1 and 2, to one group (`send`, and requests)."""
    REDO = "redo"
    """For one group only: retries that need room, and replayed dead letters."""
    DEAD = "dead"
    """The dead letters of one group."""
    REPLY = "reply"
    """Responses to one bus (`group` is its instance, `type` the token of the request)."""


def check_token(word: str, what: str) -> str:
    """Return `word` when it can stand in a subject.

    Raises `ConfigurationError`, naming `what` it was meant to be, unless it is 1 to 64 of the
    characters `A-Z a-z 0-9 _ -`: no wildcard, space, dot, brace or line break.
    """
    if isinstance(word, str) and _is_token(word):
        return word
    raise ConfigurationError(
        f"the {what} {str(word)[:80]!r} is not allowed: use 1 to {TOKEN_LIMIT} of A-Z a-z 0-9 _ -"
    )


@lru_cache(maxsize=1024)  # namespaces, types and groups are few; only tokens of requests are new
def _is_token(word: str) -> bool:
    return _TOKEN.fullmatch(word) is not None


def _token(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if value or attribute.name != "group":
        check_token(value, attribute.name)


@attrs.frozen
class Subject:
    """One address, e.g. `catga.log.OrderCreated.0`; validated when made.

    Make each once and keep it: `text` and `durable` are computed here, not per message.
    """

    namespace: str = attrs.field(validator=_token)
    kind: Kind
    type: str = attrs.field(validator=_token)
    group: str = attrs.field(default="", validator=_token)
    text: str = attrs.field(init=False, eq=False)
    durable: bool = attrs.field(init=False, eq=False)

    @text.default
    def _text(self) -> str:
        if self.kind is Kind.LIVE:
            return f"{self.namespace}.live.{self.type}"
        if self.kind is Kind.LOG:
            return f"{self.namespace}.log.{self.type}.0"
        return f"{self.namespace}.{self.kind.value}.{self.group}.{self.type}"

    @durable.default
    def _durable(self) -> bool:
        return self.kind in _STORED

    def __attrs_post_init__(self) -> None:
        if bool(self.group) == (self.kind in _GROUPLESS):
            need = "no group" if self.group else "a group"
            raise ConfigurationError(f"a {self.kind.value} subject has {need}")

    def __str__(self) -> str:
        return self.text


_STORED = frozenset({Kind.LOG, Kind.TO, Kind.REDO, Kind.DEAD})
_GROUPLESS = frozenset({Kind.LIVE, Kind.LOG})


def parse_subject(text: str) -> Subject:
    """Read a subject back from its text. Raises `ConfigurationError` when it is none of ours."""
    match text.split("."):
        case [namespace, "live", type_]:
            return Subject(namespace, Kind.LIVE, type_)
        case [namespace, "log", type_, "0"]:
            return Subject(namespace, Kind.LOG, type_)
        case [namespace, "live-to" | "to" | "redo" | "dead" | "reply" as kind, group, type_]:
            return Subject(namespace, Kind(kind), type_, group)
    raise ConfigurationError(f"not a subject of ours: {text[:80]!r}")
