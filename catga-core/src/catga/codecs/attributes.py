"""The attributes of a CloudEvent: their rules, and their other dress as headers (binary mode)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import msgspec

from catga.errors import DecodeError
from catga.ground.ids import is_message_id
from catga.model.envelope import RESERVED_HEADERS, Envelope
from catga.model.qos import QualityOfService

__all__ = ["check_attributes", "read_binary", "user_headers"]

_JSON = "application/json"
_JSON_TYPE = re.compile(
    r"\s*(application/json|text/json|[a-z]+/[^\s;]+\+json)\s*(;\s*charset=\"?utf-8\"?\s*)?",
    re.IGNORECASE,
)
_PREFIXES = ("ce-", "ce_")
_all_attributes = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def check_attributes(envelope: Envelope, specversion: str) -> Envelope:
    """Return `envelope` when its attributes obey the rules, its times in UTC.

    Raises `DecodeError` that names the attribute.
    """
    if specversion != "1.0":
        raise _bad("specversion", 'must be "1.0"')
    if not is_message_id(envelope.id):
        raise _bad("id", "must be 1 to 128 printable ASCII characters without spaces")
    if not (envelope.type and envelope.source):
        raise _bad("source" if envelope.type else "type", "must not be empty")
    if envelope.version < 1:
        raise _bad("typeversion", "must be an integer from 1")
    if envelope.content_type != _JSON and not _JSON_TYPE.fullmatch(envelope.content_type):
        raise _bad("datacontenttype", "must be application/json, the only one read here")
    if envelope.time.tzinfo is not UTC:
        envelope.time = _in_utc(envelope.time, "time")
    if envelope.deadline is not None and envelope.deadline.tzinfo is not UTC:
        envelope.deadline = _in_utc(envelope.deadline, "deadline")
    return envelope


def _bad(name: str, rule: str) -> DecodeError:
    return DecodeError(f"not a CloudEvents envelope: {name} {rule}")


def _in_utc(moment: datetime, name: str) -> datetime:
    try:
        if moment.utcoffset() is not None:
            return moment.astimezone(UTC)
    except OverflowError:
        pass
    raise _bad(name, "must be a time with a zone")


def user_headers(body: bytes) -> Mapping[str, str]:
    """Return the extensions in `body` that the envelope does not know, as text."""
    try:
        found = _all_attributes(body)
        return {
            name: _as_text(raw)
            for name, raw in found.items()
            if name not in RESERVED_HEADERS and name != "data_base64" and bytes(raw) != b"null"
        }
    except Exception as error:
        raise DecodeError("an extension of the CloudEvents envelope is not valid text") from error


def _as_text(raw: msgspec.Raw) -> str:
    """CloudEvents writes integers and booleans as text just as JSON does."""
    text = bytes(raw)
    return msgspec.json.decode(text, type=str) if text.startswith(b'"') else text.decode()


def read_binary(body: bytes, headers: Mapping[str, str]) -> Envelope | None:
    """Return the envelope whose attributes are headers, or None when they are not there.

    Raises `DecodeError` when they are there and wrong.
    """
    found: dict[str, str] = {}
    content_type = _JSON
    for name, value in headers.items():
        lower = name.lower()
        if lower.startswith(_PREFIXES):
            found[lower[3:]] = value
        elif lower == "content-type":
            content_type = value
    if "specversion" not in found:
        return None
    try:
        found = {name: unquote(value, errors="strict") for name, value in found.items()}
    except UnicodeError as error:
        raise DecodeError("a CloudEvents header is not valid percent-encoded UTF-8") from error
    time = _read_as(found, "time", datetime)
    envelope = Envelope(
        id=_required(found, "id"),
        type=_required(found, "type"),
        source=_required(found, "source"),
        time=datetime.now(UTC) if time is None else time,
        data=body,
        qos=_read_as(found, "qos", QualityOfService, QualityOfService.AT_LEAST_ONCE),
        version=_read_as(found, "typeversion", int, 1),
        correlation_id=found.get("correlationid"),
        reply_to=found.get("replyto"),
        deadline=_read_as(found, "deadline", datetime),
        parent_id=found.get("parentid"),
        content_type=found.get("datacontenttype", content_type),
        extensions={name: value for name, value in found.items() if name not in RESERVED_HEADERS},
    )
    return check_attributes(envelope, found["specversion"])


def _required(found: Mapping[str, str], name: str) -> str:
    if name in found:
        return found[name]
    raise _bad(name, "is missing")


def _read_as(found: Mapping[str, str], name: str, hint: Any, default: Any = None) -> Any:
    if name not in found:
        return default
    try:
        return msgspec.convert(found[name], hint, strict=False)
    except msgspec.ValidationError:
        raise _bad(name, f"is not a {hint.__name__}") from None
