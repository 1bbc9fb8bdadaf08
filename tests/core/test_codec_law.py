"""The law of the codec: the shortcut through msgspec and the way through cattrs mean the same."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catga.codecs import JsonCodec
from catga.errors import DecodeError, EncodeError
from core.codec_kit import (
    JUNK,
    ODD_VALUES,
    SCALARS,
    Drawn,
    damaged,
    drawn_types,
    fingerprint,
    outcome,
    slow_ways,
)

# every example makes classes: a slow machine must not turn that into a failure
LAW = settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@LAW
@given(st.data())
def test_every_value_comes_back_as_it_was(data: st.DataObject) -> None:
    hint, values = data.draw(drawn_types())
    form = JsonCodec().form(hint)
    value = data.draw(values)
    assert form.decode(form.encode(value)) == value


@LAW
@given(st.data())
def test_both_ways_write_what_reads_back_the_same(data: st.DataObject) -> None:
    hint, values = data.draw(drawn_types())
    codec = JsonCodec()
    write, read = slow_ways(codec, hint)
    value = data.draw(values)
    fast = codec.form(hint).encode(value)
    slow = bytes(write(value))
    assert fingerprint(read(fast)) == fingerprint(read(slow))
    assert outcome(codec.form(hint).decode, fast) == outcome(read, fast)


@LAW
@given(st.data())
def test_both_ways_accept_and_refuse_the_same_damaged_input(data: st.DataObject) -> None:
    hint, values = data.draw(drawn_types())
    codec = JsonCodec()
    _, read = slow_ways(codec, hint)
    text = data.draw(damaged(codec.form(hint).encode(data.draw(values))))
    assert outcome(codec.form(hint).decode, text) == outcome(read, text)


@pytest.mark.parametrize("drawn", SCALARS, ids=lambda drawn: str(drawn.hint))
def test_both_ways_take_each_odd_text_alike_for_each_scalar(drawn: Drawn) -> None:
    cls = attrs.make_class("Odd", {"a": attrs.field(type=list[drawn.hint])}, frozen=True)  # type: ignore[name-defined]  # a run-time type
    codec = JsonCodec()
    _, read = slow_ways(codec, cls)
    for junk in JUNK:
        text = b'{"a":[%b]}' % junk
        assert outcome(codec.form(cls).decode, text) == outcome(read, text), text


@pytest.mark.parametrize("hint", [float, datetime, Any, int, str, Decimal, dict[str, Any]])
def test_both_ways_write_or_refuse_each_odd_value_alike(hint: Any) -> None:
    """What msgspec alone would write as null, or without its zone, must not pass.

    A field with a value of another type is the reader's to refuse.
    """
    cls = attrs.make_class("Odd", {"a": attrs.field(type=hint | None)}, frozen=True)
    codec = JsonCodec()
    write, read = slow_ways(codec, cls)
    for odd in ODD_VALUES:
        fast = outcome(lambda odd=odd: read(codec.form(cls).encode(cls(odd))))
        slow = outcome(lambda odd=odd: read(bytes(write(cls(odd)))))
        assert fast == slow or {fast, slow} == {EncodeError, DecodeError}, odd
