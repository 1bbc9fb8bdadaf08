"""The messages: one wire type per GitHub event, its quality of service by what it means."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs

from catga import Event, QualityOfService

__all__ = ["Delivery", "GitHubEvent", "body_digest", "event_type", "quality_of", "read_deliveries"]

AT_MOST_ONCE = ("star", "watch", "fork", "ping", "label", "meta", "public")
EXACTLY_ONCE = (
    "marketplace_purchase",
    "sponsorship",
    "deployment*",
    "package",
    "release",
    "member*",
    "repository*",
    "check_*",
    "workflow_*",
)


@attrs.frozen
class GitHubEvent(Event):
    """One webhook delivery; each GitHub event has a type of its own, made by `event_type`."""

    payload: dict[str, Any]


def quality_of(event: str) -> QualityOfService:
    """Say what an event is worth."""
    if event in AT_MOST_ONCE:
        return QualityOfService.AT_MOST_ONCE
    if any(fnmatchcase(event, pattern) for pattern in EXACTLY_ONCE):
        return QualityOfService.EXACTLY_ONCE
    return QualityOfService.AT_LEAST_ONCE


@cache
def event_type(event: str) -> type[GitHubEvent]:
    """Return the message class of a GitHub event."""
    name = "".join(word.title() for word in event.split("_"))
    made = type(
        name, (GitHubEvent,), {"__slots__": (), "qos": quality_of(event), "wire_name": event}
    )
    return attrs.frozen(made)


@attrs.frozen
class Delivery:
    """One line of the input, or one of its repetitions."""

    id: str
    event: str
    payload: dict[str, Any] = attrs.field(repr=False)

    def message(self) -> GitHubEvent:
        """Return it as a message of its event's type."""
        return event_type(self.event)(self.payload)


def read_deliveries(path: Path, repeat: int) -> Iterator[Delivery]:
    """Read the file; each line becomes `repeat` deliveries with ids of their own.

    Raises `ValueError` that names the line which is none, or when there is not a single one.
    """
    seen: dict[str, int] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                one = _delivery(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            if (before := seen.setdefault(one.id, number)) != number:
                raise ValueError(f"{path}, line {number}: its `delivery` is that of line {before}")
            yield one
            for again in range(1, repeat):
                yield attrs.evolve(one, id=str(uuid.uuid5(uuid.UUID(one.id), str(again))))
    if not seen:
        raise ValueError(f"{path} holds no deliveries: one JSON object a line is wanted")


def _delivery(line: bytes) -> Delivery:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"this is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError("this is no JSON object")  # noqa: TRY004 - the file is wrong, not a type
    wanted = {"event": str, "delivery": str, "payload": dict}
    for name, type_ in wanted.items():
        if not isinstance(row.get(name), type_) or not row[name]:
            kind = "object" if type_ is dict else "string"
            raise ValueError(f"`{name}` is missing, or no {kind} with something in it")
    try:
        uuid.UUID(row["delivery"])
    except ValueError as error:
        raise ValueError("`delivery` is no UUID") from error
    return Delivery(row["delivery"], row["event"], row["payload"])


def body_digest(payload: dict[str, Any]) -> str:
    """Return a digest that any change of the payload changes."""
    text = json.dumps(payload, sort_keys=True, ensure_ascii=False)
    return sha256(text.encode()).hexdigest()[:32]
