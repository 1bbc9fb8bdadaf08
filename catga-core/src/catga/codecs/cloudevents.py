"""The envelope on the wire: one CloudEvents 1.0 event as one JSON body."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from catga.codecs.attributes import check_attributes, read_binary, user_headers
from catga.codecs.explain import explain
from catga.codecs.json import as_it_is
from catga.codecs.registry import WireType
from catga.errors import DecodeError, EncodeError
from catga.model.envelope import Envelope
from catga.model.qos import QualityOfService

__all__ = ["EventWriter", "ReadEvent", "read_envelope", "write_envelope"]

_JSON = "application/json"
_NOTHING = msgspec.Raw(b"null")
_write_text = msgspec.json.Encoder(decimal_format="string").encode


class _Fixed(msgspec.Struct, gc=False):
    """What is the same in every event of one type, quality and source."""

    specversion: str
    type: str
    source: str
    datacontenttype: str
    qos: int
    typeversion: int


class _Written(msgspec.Struct, omit_defaults=True, gc=False):
    """What is each event's own."""

    id: str
    time: datetime
    data: Any
    correlationid: str | None = None
    replyto: str | None = None
    deadline: datetime | None = None
    parentid: str | None = None


class EventWriter:
    """Writes the messages of one type, as one service sends them at one quality.

    What all of them have in common is written once, here.
    """

    __slots__ = ("_begin", "_payload", "_wire")

    def __init__(self, wire: WireType, source: str, qos: QualityOfService) -> None:
        self._wire = wire
        self._payload = None if wire.payload is as_it_is else wire.payload
        self._begin = _begin(wire.name, source, _JSON, qos, wire.version)

    def write(
        self,
        message: Any,
        message_id: str,
        time: datetime,
        correlation_id: str | None = None,
        *,
        reply_to: str | None = None,
        deadline: datetime | None = None,
        parent_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Return envelope and message as one body, in one pass.

        `headers` were checked with `check_headers`. Raises `EncodeError`.
        """
        data = message if self._payload is None else self._payload(message)
        own = _Written(message_id, time, data, correlation_id, reply_to, deadline, parent_id)
        if time.tzinfo is None or deadline is not None:
            _check_times(own)
        try:
            body = self._begin + _write_text(own)[1:]
        except Exception:  # whatever msgspec dislikes in the message, the codec decides
            own.data = msgspec.Raw(self._wire.encode(message))
            body = self._begin + _write_attributes(own, self._wire.name)[1:]
        return _join(body, headers) if headers else body


def write_envelope(envelope: Envelope) -> bytes:
    """Return `envelope` as one body; its `data` must be JSON when its content type says so.

    Raises `EncodeError` for a time without a zone.
    """
    is_json = envelope.content_type == _JSON
    own = _Written(
        envelope.id,
        envelope.time,
        msgspec.Raw(envelope.data) if is_json else None,
        envelope.correlation_id,
        envelope.reply_to,
        envelope.deadline,
        envelope.parent_id,
    )
    _check_times(own)
    type_ = envelope.type
    begin = _begin(type_, envelope.source, envelope.content_type, envelope.qos, envelope.version)
    body = begin + _write_attributes(own, type_)[1:]
    if not is_json:
        body = _join(body, {"data_base64": envelope.data})
    return _join(body, envelope.headers) if envelope.headers else body


@lru_cache(maxsize=256)  # a bus answers with few of them, again and again
def _begin(type_: str, source: str, content_type: str, qos: int, version: int) -> bytes:
    """Return the text of an event up to what is its own. Raises `EncodeError`."""
    fixed = _Fixed("1.0", type_, source, content_type, qos, version)
    return _write_attributes(fixed, type_)[:-1] + b","


def _check_times(own: _Written) -> None:
    deadline = own.deadline
    if own.time.tzinfo is None or (deadline is not None and deadline.tzinfo is None):
        raise EncodeError("the time and the deadline of a message must have a time zone")


def _write_attributes(part: _Fixed | _Written, type_: str) -> bytes:
    try:
        return _write_text(part)
    except Exception as error:
        raise EncodeError(f"an attribute of {type_} is not valid text") from error


def _join(body: bytes, more: Mapping[str, Any]) -> bytes:
    return b"%b,%b" % (body[:-1], _write_text(dict(more))[1:])


class ReadEvent(Envelope, gc=False, eq=False):
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


_parse = msgspec.json.Decoder(ReadEvent).decode


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
