"""Reading the messages of one type: envelope and message in one pass, where both are plain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from catga.codecs.cloudevents import ReadEvent, read_envelope
from catga.codecs.registry import WireType
from catga.ground.ids import MESSAGE_ID_LIMIT
from catga.model.envelope import Envelope
from catga.model.qos import QualityOfService

__all__ = ["UNREAD", "EventReader"]

UNREAD: Any = msgspec.UNSET
"""In place of a message that is still to be read from the data of its envelope."""
_READ = b""


class EventReader:
    """Reads what arrives on the subjects of one type.

    One pass is taken for what is surely right: written in JSON, in this version, with nothing that
    has to be filled in. Everything else, and whatever is wrong, is left to `read_envelope` and to
    the codec, who say what it is.
    """

    __slots__ = ("_guard", "_parse")

    def __init__(self, wire: WireType) -> None:
        self._guard = wire.read_guard
        self._parse: Callable[[bytes], Any] | None = None
        if wire.fast_to_read:
            self._parse = msgspec.json.Decoder(_event_of(wire)).decode

    def read(self, body: bytes, headers: Mapping[str, str] | None) -> tuple[Envelope, Any]:
        """Return the envelope, and the message or `UNREAD`: then the envelope has its data.

        Raises `DecodeError` for what is no envelope.
        """
        if self._parse is not None and not headers:
            try:
                event = self._parse(body)
                message, name = event.data, event.id
                guard = self._guard
                if (
                    message is not UNREAD
                    and event.time.tzinfo is UTC
                    and event.deadline is None
                    and event.source
                    # As `is_message_id` has it: a call costs as much, and its length is known.
                    and name.isascii()
                    and name.isprintable()
                    and " " not in name
                    and (guard is None or guard(message))
                ):
                    event.data = _READ
                    event.extensions = body  # read from there when asked for
                    return event, message
            except Exception:  # noqa: S110 - whatever is wrong with it is found and told below
                pass
        return read_envelope(body, headers), UNREAD


def _event_of(wire: WireType) -> type[msgspec.Struct]:
    """Return an envelope that the parser itself refuses when it is not the most usual one."""
    return msgspec.defstruct(
        "Event",
        [
            ("specversion", Literal["1.0"]),
            ("type", Literal[wire.name]),
            ("version", Literal[wire.version]),
            ("content_type", Literal["application/json"]),
            ("id", Annotated[str, msgspec.Meta(min_length=1, max_length=MESSAGE_ID_LIMIT)]),
            ("time", datetime),
            ("qos", QualityOfService),
            ("data_base64", None, None),
            ("data", wire.cls, UNREAD),
        ],
        bases=(ReadEvent,),
        kw_only=True,
        gc=False,
        eq=False,
    )
