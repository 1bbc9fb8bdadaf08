"""The law of the codec: the shortcut through msgspec and the way through cattrs mean the same."""

from __future__ import annotations

import attrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catga.codecs import JsonCodec
from core.codec_kit import damaged, drawn_types, fingerprint, outcome, slow_ways

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
    assert outcome(codec.form(hint).decode, slow) == outcome(read, fast)


@LAW
@given(st.data())
def test_both_ways_accept_and_refuse_the_same_damaged_input(data: st.DataObject) -> None:
    hint, values = data.draw(drawn_types())
    codec = JsonCodec()
    _, read = slow_ways(codec, hint)
    text = data.draw(damaged(codec.form(hint).encode(data.draw(values))))
    assert outcome(codec.form(hint).decode, text) == outcome(read, text)


def test_the_law_is_about_something() -> None:
    """Most drawn types must take the shortcut, or the laws above compare a thing with itself."""

    @attrs.frozen
    class Plain:
        number: int
        share: float

    form = JsonCodec().form(Plain)
    assert form.fast_to_read
    assert form.fast_to_write
