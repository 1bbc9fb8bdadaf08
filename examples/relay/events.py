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
    """Read the file; each line becomes `repeat` deliveries with ids of their own."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.strip():
                continue
            row = json.loads(line)
            yield Delivery(row["delivery"], row["event"], row["payload"])
            for again in range(1, repeat):
                id_ = str(uuid.uuid5(uuid.UUID(row["delivery"]), str(again)))
                yield Delivery(id_, row["event"], row["payload"])


def body_digest(payload: dict[str, Any]) -> str:
    """Return a digest that any change of the payload changes."""
    text = json.dumps(payload, sort_keys=True, ensure_ascii=False)
    return sha256(text.encode()).hexdigest()[:32]
