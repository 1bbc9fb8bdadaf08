"""The envelope: what travels around a message, as a CloudEvents 1.0 event."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from catga.errors import ConfigurationError
from catga.model.qos import QualityOfService

__all__ = ["RESERVED_HEADERS", "Envelope", "check_headers"]

_HEADER_NAME = re.compile(r"[a-z0-9]{1,20}")
_HEADER_VALUE = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{0,4096}")
_HEADER_TOTAL_BYTES = 32 * 1024

RESERVED_HEADERS = frozenset(
    {
        "correlationid",
        "data",
        "database64",
        "datacontenttype",
        "dataschema",
        "deadline",
        "id",
        "parentid",
        "qos",
        "replyto",
        "source",
        "specversion",
        "subject",
        "time",
        "type",
        "typeversion",
    }
)
"""Names that the envelope itself uses; a user's header may not."""

_NAMES = {
    "version": "typeversion",
    "correlation_id": "correlationid",
    "reply_to": "replyto",
    "parent_id": "parentid",
    "content_type": "datacontenttype",
}
"""What an attribute is called on the wire, where it is called differently."""


class Envelope(msgspec.Struct, gc=False, eq=False, repr_omit_defaults=True, rename=_NAMES):
    """The attributes of one message on the wire, and its data still as bytes.

    A value. One is made per message, so the parser makes it, and no collector looks at it.
    """

    id: str
    type: str
    source: str
    time: datetime
    data: bytes
    qos: QualityOfService = QualityOfService.AT_LEAST_ONCE
    version: int = 1
    correlation_id: str | None = None
    reply_to: str | None = None
    deadline: datetime | None = None
    parent_id: str | None = None
    content_type: str = "application/json"
    extensions: Any = None
    """The user's headers, or what they are still to be read from."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The user's own attributes, as CloudEvents extensions; read when first asked for.

        Raises `DecodeError` then, when one of them is no text.
        """
        headers: Mapping[str, str] = self.extensions or {}
        return headers

    def __eq__(self, other: object) -> bool:
        """Compare everything but the headers."""
        if not isinstance(other, Envelope):
            return NotImplemented
        return _but_headers(self) == _but_headers(other)

    __hash__ = None  # type: ignore[assignment]  # a value that can be changed

    def __repr__(self) -> str:
        return f"<Envelope {self.id} of {self.type} from {self.source}>"


def _but_headers(envelope: Envelope) -> list[Any]:
    names = Envelope.__struct_fields__[:-1]
    return [getattr(envelope, name) for name in names]


def check_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return `headers` when every one can travel as a CloudEvents extension.

    Raises `ConfigurationError` unless names are 1 to 20 of `a-z 0-9` and not reserved, values are
    text without control characters and at most 4 KiB, and all together at most 32 KiB.
    """
    total = 0
    for name, value in headers.items():
        if not (isinstance(name, str) and _HEADER_NAME.fullmatch(name)):
            raise ConfigurationError(
                f"the header name {str(name)[:40]!r} is not allowed: use 1 to 20 of a-z 0-9"
            )
        if name in RESERVED_HEADERS:
            raise ConfigurationError(f"the header name {name!r} belongs to the envelope")
        if not (isinstance(value, str) and _HEADER_VALUE.fullmatch(value)):
            raise ConfigurationError(
                f"the value of header {name!r} must be text of at most 4096 characters without "
                "line breaks or other control characters"
            )
        total += len(name) + len(value.encode())
    if total > _HEADER_TOTAL_BYTES:
        raise ConfigurationError(f"the headers take {total} bytes, at most 32768 are allowed")
    return headers
