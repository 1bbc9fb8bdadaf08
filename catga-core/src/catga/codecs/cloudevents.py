"""The envelope on the wire: one CloudEvents 1.0 event as one JSON body."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import attrs
import msgspec

from catga.codecs.attributes import check_attributes, read_binary, user_headers
from catga.codecs.explain import explain
from catga.codecs.registry import WireType
from catga.errors import DecodeError, EncodeError
from catga.model.envelope import Envelope
from catga.model.qos import QualityOfService

__all__ = ["EnvelopeWriter", "Extensions", "read_envelope", "write_envelope"]

_JSON = "application/json"
_NOTHING = msgspec.Raw(b"null")
_write_text = msgspec.json.Encoder(decimal_format="string").encode


@attrs.frozen
class Extensions:
    """What an envelope carries only now and then."""

    correlation_id: str | None = None
    reply_to: str | None = None
    deadline: datetime | None = None
    parent_id: str | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)
    """Checked with `check_headers` before."""


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


class EnvelopeWriter:
    """Writes the messages of one type from one service; make it once per type."""

    __slots__ = ("_encode", "_name", "_payload", "_source", "_version")

    def __init__(self, wire: WireType, source: str) -> None:
        self._name = wire.name
        self._version = wire.version
        self._source = source
        self._payload = wire.payload
        self._encode = wire.encode

    def write(
        self,
        message: Any,
        message_id: str,
        time: datetime,
        qos: QualityOfService,
        extensions: Extensions | None = None,
    ) -> bytes:
        """Return envelope and message as one body, in one pass. Raises `EncodeError`."""
        written = _Written(
            "1.0",
            message_id,
            self._name,
            self._source,
            time,
            _JSON,
            qos,
            self._version,
            self._payload(message),
        )
        try:
            return _finish(written, extensions)
        except EncodeError:
            raise
        except Exception:  # whatever msgspec dislikes in the message, the codec decides
            written.data = msgspec.Raw(self._encode(message))
            return _finish(written, extensions)


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
    )
    body = _finish(
        written,
        Extensions(
            envelope.correlation_id,
            envelope.reply_to,
            envelope.deadline,
            envelope.parent_id,
            envelope.headers,
        ),
    )
    return body if is_json else _join(body, {"data_base64": envelope.data})


def _finish(written: _Written, extensions: Extensions | None) -> bytes:
    if written.time.tzinfo is None:
        raise EncodeError("the time of an envelope must have a time zone")
    if extensions is None:
        return _write_text(written)
    written.correlationid = extensions.correlation_id
    written.replyto = extensions.reply_to
    written.deadline = extensions.deadline
    written.parentid = extensions.parent_id
    if written.deadline is not None and written.deadline.tzinfo is None:
        raise EncodeError("the deadline of an envelope must have a time zone")
    body = _write_text(written)
    return _join(body, extensions.headers) if extensions.headers else body


def _join(body: bytes, more: Mapping[str, Any]) -> bytes:
    return b"%b,%b" % (body[:-1], _write_text(dict(more))[1:])


class _Read(msgspec.Struct, gc=False):
    specversion: str
    id: str
    type: str
    source: str
    time: datetime | None = None
    datacontenttype: str | None = None
    qos: QualityOfService | None = None
    typeversion: int | None = None
    data: msgspec.Raw = _NOTHING
    data_base64: bytes | None = None
    correlationid: str | None = None
    replyto: str | None = None
    deadline: datetime | None = None
    parentid: str | None = None


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
        data = bytes(read.data)
    elif read.data is _NOTHING:
        data = read.data_base64
    else:
        raise DecodeError("not a CloudEvents envelope: it has both data and data_base64")
    time, qos, version = read.time, read.qos, read.typeversion
    envelope = Envelope(
        read.id,
        read.type,
        read.source,
        datetime.now(UTC) if time is None else time,
        data,
        QualityOfService.AT_LEAST_ONCE if qos is None else qos,
        1 if version is None else version,
        read.correlationid,
        read.replyto,
        read.deadline,
        read.parentid,
        read.datacontenttype or _JSON,
        lambda: user_headers(body),
    )
    return check_attributes(envelope, read.specversion)
