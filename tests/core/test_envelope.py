"""Envelopes: CloudEvents 1.0 as one body, read strictly, written in one pass."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from cloudevents.core.bindings import http
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from catga.codecs import EventWriter, TypeRegistry, WireType, read_envelope, write_envelope
from catga.errors import ConfigurationError, DecodeError, EncodeError
from catga.model.envelope import Envelope, check_headers
from catga.model.message import Event
from catga.model.qos import QualityOfService

NOON = datetime(2026, 1, 1, 12, 0, 0, 5, tzinfo=UTC)


@attrs.frozen
class Fast(Event):
    version = 2
    words: str
    share: float = 0.5


@attrs.frozen
class Slow(Event):
    words: str = attrs.field(converter=str)
    _hidden: int = 3


def _wire(cls: type) -> WireType:
    return TypeRegistry().register(cls)


def _write(message: Any, **more: Any) -> bytes:
    writer = EventWriter(_wire(type(message)), "billing", QualityOfService.EXACTLY_ONCE)
    return writer.write(message, **{"message_id": "id-1", "time": NOON, **more})


@pytest.mark.parametrize("message", [Fast("héllo 🎈"), Slow("x", 4)], ids=["fast", "slow"])
def test_what_is_written_is_read_back(message: Any) -> None:
    headers = {"traceparent": "00-abc", "tenant": "große"}
    body = _write(
        message,
        correlation_id="c",
        reply_to="catga.reply.i.1",
        deadline=NOON,
        parent_id="p",
        headers=headers,
    )
    envelope = read_envelope(body)
    wire = _wire(type(message))
    assert wire.decode(envelope.data, envelope.version) == message
    assert envelope == Envelope(
        id="id-1",
        type=wire.name,
        source="billing",
        time=NOON,
        data=envelope.data,
        qos=QualityOfService.EXACTLY_ONCE,
        version=wire.version,
        correlation_id="c",
        reply_to="catga.reply.i.1",
        deadline=NOON,
        parent_id="p",
    )
    assert envelope.headers == headers
    assert read_envelope(write_envelope(envelope)) == envelope
    assert read_envelope(write_envelope(envelope)).headers == headers


def test_what_is_not_set_is_not_written() -> None:
    assert set(json.loads(_write(Fast("x")))) == {
        "specversion", "id", "type", "source", "time", "datacontenttype", "data", "qos",
        "typeversion",
    }  # fmt: skip


def test_a_message_that_cannot_be_written_is_refused() -> None:
    for bad in (Fast("x", float("nan")), Fast("\ud800"), Slow("\ud800")):
        with pytest.raises(EncodeError):
            _write(bad)


def test_an_attribute_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(EncodeError, match="attribute of Fast"):
        _write(Fast("x"), correlation_id="\ud800")


def test_times_without_a_zone_are_refused() -> None:
    naive = datetime(2026, 1, 1)  # noqa: DTZ001 - the point
    with pytest.raises(EncodeError, match="zone"):
        _write(Fast("x"), time=naive)
    with pytest.raises(EncodeError, match="zone"):
        _write(Fast("x"), deadline=naive)


def test_the_sdk_reads_what_we_write() -> None:
    body = _write(Fast("héllo"), correlation_id="c", headers={"traceparent": "00-abc"})
    event = JSONFormat().read(None, body)
    assert event.get_id() == "id-1"
    assert event.get_type() == "Fast"
    assert event.get_source() == "billing"
    assert event.get_time() == NOON
    assert event.get_datacontenttype() == "application/json"
    assert event.get_data() == {"words": "héllo", "share": 0.5}
    assert event.get_extension("qos") == 2
    assert event.get_extension("typeversion") == 2
    assert event.get_extension("correlationid") == "c"
    assert event.get_extension("traceparent") == "00-abc"
    again = read_envelope(JSONFormat().write(event))
    first = read_envelope(body)
    first.data = again.data  # written by another hand
    assert again == first
    assert _wire(Fast).decode(again.data, 2) == Fast("héllo")


def _foreign(**attributes: Any) -> CloudEvent:
    given = {"type": "Fast", "source": "/there", "id": "f-1", **attributes}
    return CloudEvent(given, {"words": "hé%llo"})


def test_we_read_what_the_sdk_writes() -> None:
    there = NOON.astimezone(timezone(timedelta(hours=-3)))
    event = _foreign(time=there, subject="s", tenant="t", flag=True, count=3)
    envelope = read_envelope(JSONFormat().write(event))
    assert (envelope.id, envelope.type, envelope.source) == ("f-1", "Fast", "/there")
    assert envelope.time == NOON
    assert envelope.time.tzinfo is UTC
    assert envelope.qos is QualityOfService.AT_LEAST_ONCE
    assert envelope.version == 1
    assert _wire(Fast).decode(envelope.data, 2) == Fast("hé%llo")
    assert envelope.headers == {"tenant": "t", "flag": "true", "count": "3"}


def test_we_read_binary_mode_as_the_sdk_writes_it() -> None:
    event = _foreign(time=NOON, tenant="große 100 %", qos="2", typeversion="2", correlationid="c")
    message = http.to_binary(event, JSONFormat())
    envelope = read_envelope(message.body, message.headers)
    assert (envelope.id, envelope.time, envelope.qos) == ("f-1", NOON, QualityOfService(2))
    assert envelope.correlation_id == "c"
    assert envelope.headers == {"tenant": "große 100 %"}
    assert _wire(Fast).decode(envelope.data, envelope.version) == Fast("hé%llo")


def test_headers_that_are_no_attributes_do_not_mean_binary_mode() -> None:
    assert read_envelope(_write(Fast("x")), {"Nats-Msg-Id": "id-9", "ce-id": "other"}).id == "id-1"


def test_data_in_base64_is_read() -> None:
    event = CloudEvent(
        {"type": "Fast", "source": "/there", "id": "f-1", "datacontenttype": "application/json"},
        b'{"words":"x"}',
    )
    envelope = read_envelope(JSONFormat().write(event))
    assert _wire(Fast).decode(envelope.data, 2) == Fast("x")


def test_without_a_time_it_is_now() -> None:
    before = datetime.now(UTC)
    envelope = read_envelope(b'{"specversion":"1.0","id":"1","type":"T","source":"s"}')
    assert before <= envelope.time <= datetime.now(UTC)
    assert envelope.data == b"null"


GOOD: dict[str, Any] = {
    "specversion": "1.0",
    "id": "1",
    "type": "T",
    "source": "s",
    "time": "2026-01-01T12:00:00Z",
    "data": {"a": 1},
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"specversion": 1.0}, "specversion"),
        ({"specversion": None}, "specversion"),
        ({"id": ""}, "id must be"),
        ({"id": "a b"}, "id must be"),
        ({"id": "x" * 129}, "id must be"),
        ({"id": "é"}, "id must be"),
        ({"id": "a\r\nb"}, "id must be"),
        ({"id": 7}, r"\$\.id"),
        ({"type": ""}, "type must not be empty"),
        ({"source": ""}, "source must not be empty"),
        ({"source": ...}, "source"),
        ({"time": "2026-01-01T12:00:00"}, "time must be a time with a zone"),
        ({"time": "9999-12-31T23:59:59-10:00"}, "time must be a time with a zone"),
        ({"time": "yesterday"}, r"\$\.time"),
        ({"deadline": "2026-01-01T12:00:00"}, "deadline must be a time with a zone"),
        ({"qos": 3}, r"\$\.qos"),
        ({"qos": "1"}, r"\$\.qos"),
        ({"qos": True}, r"\$\.qos"),
        ({"typeversion": 0}, "typeversion"),
        ({"typeversion": 1.5}, "typeversion"),
        ({"datacontenttype": "text/xml"}, "datacontenttype must be application/json"),
        ({"datacontenttype": "application/json; charset=latin-1"}, "datacontenttype"),
        ({"data_base64": "e30="}, "both data and data_base64"),
        ({"data_base64": "!", "data": ...}, "data_base64"),
    ],
)
def test_a_bad_attribute_is_refused_by_name(change: dict[str, Any], words: str) -> None:
    given = {name: value for name, value in {**GOOD, **change}.items() if value is not ...}
    with pytest.raises(DecodeError, match=words):
        read_envelope(json.dumps(given).encode())


@pytest.mark.parametrize(
    "good",
    [
        {"datacontenttype": "application/json; charset=utf-8"},
        {"datacontenttype": "application/vnd.order+json"},
        {"datacontenttype": None, "qos": None, "time": None, "correlationid": None, "tenant": None},
        {"id": "!" * 128},
    ],
)
def test_what_the_standard_allows_is_read(good: dict[str, Any]) -> None:
    envelope = read_envelope(json.dumps({**GOOD, **good}).encode())
    assert json.loads(envelope.data) == {"a": 1}
    assert envelope.headers == {}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[{}]", b"{}", b"[" * 100_000, b'"x"', b'{"id":"1"}'],
)
def test_poison_is_a_decode_error(body: bytes) -> None:
    with pytest.raises(DecodeError, match="not a CloudEvents envelope"):
        read_envelope(body)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"ce-specversion": "1.0"}, "id is missing"),
        ({"ce-specversion": "2.0"}, "specversion"),
        ({"ce-qos": "9"}, "qos"),
        ({"ce-qos": "x"}, "qos"),
        ({"ce-time": "x"}, "time"),
        ({"ce-typeversion": "x"}, "typeversion"),
        ({"content-type": "text/plain"}, "datacontenttype"),
        ({"ce-tenant": "%ff"}, "UTF-8"),
    ],
)
def test_bad_binary_attributes_are_refused_by_name(headers: dict[str, str], words: str) -> None:
    good = {"ce-specversion": "1.0", "CE-ID": "1", "ce_type": "T", "ce-source": "s"}
    given = headers if headers == {"ce-specversion": "1.0"} else {**good, **headers}
    with pytest.raises(DecodeError, match=words):
        read_envelope(b"{}", given)


@given(st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.dictionaries(st.sampled_from([*GOOD, "qos", "deadline", "x"]), inner),
).map(lambda tree: json.dumps(tree).encode()))  # fmt: skip
def test_nothing_but_a_decode_error_comes_out_of_any_bytes(body: bytes) -> None:
    for headers in (None, {"ce-specversion": "1.0", "ce-id": "1"}):
        with contextlib.suppress(DecodeError):
            assert read_envelope(body, headers).headers is not None


_names = st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True)
_values = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


@given(st.dictionaries(_names, _values, max_size=4))
def test_every_header_that_is_allowed_comes_back(headers: dict[str, str]) -> None:
    try:
        check_headers(headers)
    except ConfigurationError:
        return
    assert read_envelope(_write(Fast("x"), headers=headers)).headers == headers
