"""The envelope on the wire: one CloudEvents 1.0 event as one JSON body."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from catga.codecs.attributes import check_attributes, read_binary, user_headers
from catga.codecs.explain import explain
from catga.codecs.registry import WireType
from catga.errors import DecodeError, EncodeError
from catga.model.envelope import Envelope
from catga.model.qos import QualityOfService

__all__ = ["read_envelope", "write_envelope", "write_message"]

_JSON = "application/json"
_NOTHING = msgspec.Raw(b"null")
_write_text = msgspec.json.Encoder(decimal_format="string").encode


class _Written(msgspec.Struct, omit_defaults=True, gc=False):
    specversion: str
    id: str
    type: str
    source: str
    time: datetime
    datacontenttype: str
    qos: int
    typeversion: int
    data: Any
    correlationid: str | None = None
    replyto: str | None = None
    deadline: datetime | None = None
    parentid: str | None = None


def write_message(  # noqa: PLR0913 - the attributes of an event, all but two by name
    wire: WireType,
    message: Any,
    *,
    message_id: str,
    source: str,
    time: datetime,
    qos: QualityOfService,
    correlation_id: str | None = None,
    reply_to: str | None = None,
    deadline: datetime | None = None,
    parent_id: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Return envelope and message as one body, in one pass.

    `headers` were checked with `check_headers`. Raises `EncodeError`.
    """
    written = _Written(
        "1.0",
        message_id,
        wire.name,
        source,
        time,
        _JSON,
        qos,
        wire.version,
        wire.payload(message),
        correlation_id,
        reply_to,
        deadline,
        parent_id,
    )
    _check_times(written)
    try:
        body = _write_text(written)
    except Exception:  # whatever msgspec dislikes in the message, the codec decides
        written.data = msgspec.Raw(wire.encode(message))
        body = _write_attributes(written)
    return _join(body, headers) if headers else body


def write_envelope(envelope: Envelope) -> bytes:
    """Return `envelope` as one body; its `data` must be JSON when its content type says so.

    Raises `EncodeError` for a time without a zone.
    """
    is_json = envelope.content_type == _JSON
    written = _Written(
        "1.0",
        envelope.id,
        envelope.type,
        envelope.source,
        envelope.time,
        envelope.content_type,
        envelope.qos,
        envelope.version,
        msgspec.Raw(envelope.data) if is_json else None,
        envelope.correlation_id,
        envelope.reply_to,
        envelope.deadline,
        envelope.parent_id,
    )
    _check_times(written)
    body = _write_attributes(written)
    if not is_json:
        body = _join(body, {"data_base64": envelope.data})
    return _join(body, envelope.headers) if envelope.headers else body


def _check_times(written: _Written) -> None:
    deadline = written.deadline
    if written.time.tzinfo is None or (deadline is not None and deadline.tzinfo is None):
        raise EncodeError("the time and the deadline of a message must have a time zone")


def _write_attributes(written: _Written) -> bytes:
    try:
        return _write_text(written)
    except Exception as error:
        raise EncodeError(f"an attribute of {written.type} is not valid text") from error


def _join(body: bytes, more: Mapping[str, Any]) -> bytes:
    return b"%b,%b" % (body[:-1], _write_text(dict(more))[1:])


class _Read(Envelope, gc=False, eq=False):
    """As the parser makes it: what may be missing is still to be filled in."""

    time: datetime | None = None  # type: ignore[assignment]
    data: msgspec.Raw = _NOTHING
    qos: QualityOfService | None = None  # type: ignore[assignment]
    version: int | None = None  # type: ignore[assignment]
    content_type: str | None = None  # type: ignore[assignment]
    specversion: str = ""
    data_base64: bytes | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """Read from the body when first asked for."""
        if not isinstance(self.extensions, dict):
            self.extensions = user_headers(self.extensions)
        return self.extensions


_parse = msgspec.json.Decoder(_Read).decode


def read_envelope(body: bytes, headers: Mapping[str, str] | None = None) -> Envelope:
    """Return the envelope that `body` holds, its data unread.

    When `headers` carry CloudEvents attributes (`ce-…`), they are the envelope and `body` is the
    data. Without a `time` the envelope says now, without a `qos` at least once.

    Raises `DecodeError` that says what is wrong.
    """
    if headers:
        binary = read_binary(body, headers)
        if binary is not None:
            return binary
    try:
        read = _parse(body)
    except Exception as error:
        raise DecodeError(f"not a CloudEvents envelope: {explain(error)}") from error
    if read.data_base64 is None:
        read.data = bytes(read.data)  # type: ignore[assignment]
    elif read.data is _NOTHING:
        read.data = read.data_base64  # type: ignore[assignment]
    else:
        raise DecodeError("not a CloudEvents envelope: it has both data and data_base64")
    read.extensions = body  # whatever the parser has found under that name
    if read.time is None:
        read.time = datetime.now(UTC)
    if read.qos is None:
        read.qos = QualityOfService.AT_LEAST_ONCE
    if read.version is None:
        read.version = 1
    read.content_type = read.content_type or _JSON
    return check_attributes(read, read.specversion)
