"""Nodes: who takes part, what is known of each, and what changes among them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import attrs

from catga.errors import ConfigurationError, DecodeError
from catga.ground.ids import new_instance
from catga.model.subject import check_token

__all__ = ["ChangeKind", "Node", "NodeChange", "NodeRecord"]

_NEVER = datetime.fromtimestamp(0, UTC)
_KEY = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MOST_ENTRIES = 32
_LONGEST_VALUE = 512
_LONGEST_RECORD = 1 << 17


def _token(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if value or attribute.name != "service":
        check_token(value, f"{attribute.name} of a node")


def _words(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    _check_words(value, attribute.name)


def _check_words(value: Any, what: str) -> None:
    # A node is shown in the terminals of others: no control characters.
    if not isinstance(value, str) or len(value) > _LONGEST_VALUE or not value.isprintable():
        raise ConfigurationError(
            f"the {what[:80]} of a node is printable text of at most {_LONGEST_VALUE} characters, "
            f"not {str(value)[:40]!r}"
        )


def _load(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= sys.float_info.max:
        raise ConfigurationError(
            f"the {attribute.name} of a node is a number from 0 on, not {str(value)[:40]!r}"
        )


def _metadata(_: object, attribute: attrs.Attribute[Any], value: Mapping[str, str]) -> None:
    if len(value) > _MOST_ENTRIES:
        raise ConfigurationError(f"the {attribute.name} of a node has over {_MOST_ENTRIES} entries")
    for key, words in value.items():
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise ConfigurationError(
                f"a key in the {attribute.name} of a node is 1 to 64 of A-Z a-z 0-9 . _ -, "
                f"not {str(key)[:40]!r}"
            )
        _check_words(words, f"{attribute.name} {key!r}")


def _frozen(value: Mapping[str, str]) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"the metadata of a node is a mapping, not {str(value)[:40]!r}")
    return MappingProxyType(dict(value))


def _aware(_: object, attribute: attrs.Attribute[Any], value: datetime) -> None:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ConfigurationError(f"the time {attribute.name} of a node is an aware datetime")


@attrs.frozen(kw_only=True)
class Node:
    """One running member of a service, as it describes itself. Everybody on the broker can read
    it: put no secrets in.

    Raises `ConfigurationError` for what cannot be shown or stored everywhere.
    """

    id: str = attrs.field(factory=new_instance, validator=_token)
    """Nobody else has it at the same time: 1 to 64 of `A-Z a-z 0-9 _ -`; random unless given."""
    service: str = attrs.field(default="", validator=_token)
    """What it is one of; a bus fills in its own."""
    address: str = attrs.field(default="", validator=_words)
    """Where others reach it, in words of your own, e.g. `http://10.0.0.7:8080`."""
    load: float = attrs.field(default=0.0, validator=_load)
    """How busy it is, on a scale of your own, from 0 on."""
    metadata: Mapping[str, str] = attrs.field(
        factory=dict, converter=_frozen, validator=_metadata, hash=False
    )
    """At most 32 entries: version, zone, and the like."""
    started: datetime = attrs.field(default=_NEVER, validator=_aware)
    """When it began, by its own clock; filled in when it registers first."""
    last_seen: datetime = attrs.field(default=_NEVER, validator=_aware)
    """When its lease was last renewed, by the broker's clock, so the same to every reader."""

    def begun(self, now: datetime) -> Node:
        """Return the node with `started` filled in, unless it is."""
        return self if self.started != _NEVER else attrs.evolve(self, started=now)


class ChangeKind(StrEnum):
    """What happened to a node."""

    JOINED = "joined"
    """It is there; also said of each that is there when somebody begins to watch."""
    LEFT = "left"
    """It said good-bye."""
    UPDATED = "updated"
    """Load, address or metadata are others; a renewed lease alone is not told."""
    EXPIRED = "expired"
    """Its lease ended without a word; or its id belongs to a successor by now."""


@attrs.frozen
class NodeChange:
    """One change; `node` is as it is now, or as it was last seen."""

    kind: ChangeKind
    node: Node


@attrs.frozen
class NodeRecord:
    """What is stored of a node: itself, who wrote it, and how long that holds."""

    node: Node
    owner: str = attrs.field(validator=_token)
    """A token of the process that registered it: whoever has another one may not renew it."""
    ttl: float = attrs.field(validator=_load)
    """Seconds after its last renewal for which it counts as there."""

    def to_bytes(self) -> bytes:
        """Return it as JSON, without the time it was last seen, which the broker adds."""
        node = self.node
        fields = {
            "id": node.id,
            "service": node.service,
            "address": node.address,
            "load": node.load,
            "metadata": dict(node.metadata),
            "started": node.started.isoformat(),
            "owner": self.owner,
            "ttl": self.ttl,
        }
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes, last_seen: datetime) -> NodeRecord:
        """Read it back. Raises `DecodeError` for anything else; unknown fields are ignored."""
        try:
            return cls._read(data, last_seen)
        except (ValueError, TypeError, LookupError, RecursionError, ConfigurationError) as error:
            raise DecodeError(f"not the record of a node: {str(error)[:200]}") from error

    @classmethod
    def _read(cls, data: bytes, last_seen: datetime) -> NodeRecord:
        if len(data) > _LONGEST_RECORD:
            raise ConfigurationError(f"{len(data)} bytes")
        fields = json.loads(data)
        node = Node(
            id=fields["id"],
            service=fields["service"],
            address=fields["address"],
            load=fields["load"],
            metadata=fields["metadata"],
            started=datetime.fromisoformat(fields["started"]),
            last_seen=last_seen,
        )
        return cls(node, fields["owner"], fields["ttl"])
