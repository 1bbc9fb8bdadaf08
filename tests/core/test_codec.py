"""What the JSON codec carries, what it refuses, and when it takes the shortcut."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import attrs
import pytest

from catga.codecs import JsonCodec
from catga.errors import ConfigurationError, DecodeError, EncodeError
from catga.model.message import Event, Request
from core.codec_kit import Circle, Square, fingerprint, nested, slow_ways

T = TypeVar("T")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@attrs.frozen
class Line:
    sku: str
    count: int = 1


@attrs.frozen
class Order(Event):
    order_id: UUID
    placed: datetime
    total: Decimal
    lines: list[Line]
    note: str | None = None


@attrs.frozen
class Charge(Request[Order]):
    amount: Decimal


@attrs.define(slots=False)
class Loose(Event):
    share: float = 0.5


@attrs.frozen(kw_only=True)
class Later(Event):
    when: datetime
    what: Any = None


def _absolute(number: int) -> int:
    return abs(number)


@attrs.frozen
class Converted:
    number: int = attrs.field(converter=_absolute)


@attrs.frozen
class Private:
    _secret: int


@attrs.frozen
class Aliased:
    number: int = attrs.field(alias="n")


@attrs.frozen
class Computed:
    number: int
    double: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "double", self.number * 2)


@attrs.frozen
class OwnDefault:
    number: int
    other: int = attrs.field()

    @other.default
    def _other(self) -> int:
        return self.number + 1


@attrs.define
class Prepared:
    number: int

    def __attrs_pre_init__(self) -> None:
        self.number = 0


@attrs.frozen(cache_hash=True)
class Hashed:
    number: int


@attrs.define(init=False)
class OwnInit:
    number: int

    def __init__(self, number: int) -> None:
        self.number = abs(number)


@attrs.define
class Counted:
    """Runs code after construction: msgspec does so too."""

    number: int
    seen: list[int] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.seen.append(self.number)


@attrs.frozen
class Positive:
    number: int = attrs.field(validator=attrs.validators.gt(0))


@attrs.frozen
class Tree:
    name: str
    children: tuple[Tree, ...] = ()


@attrs.frozen
class Add:
    left: Circle | Add
    right: Circle | Add | None = None


@attrs.frozen
class Nesting:
    inner: Converted


@attrs.frozen
class Shapes:
    one: Circle | Square
    more: list[Circle | Square | None]


@attrs.frozen
class Box(Generic[T]):
    content: T


@attrs.frozen
class KeywordFirst:
    """Without detailed validation cattrs 26.2 generates invalid code for this order."""

    first: int = attrs.field(kw_only=True, converter=int)
    second: int


VALUES = [
    # value, shortcut for reading, for writing
    (Order(UUID(int=7), NOON, Decimal("12.50"), [Line("a"), Line("b", 3)]), True, True),
    (Charge(Decimal(3)), True, True),
    (Loose(0.25), True, True),
    (Later(when=NOON, what={"a": [1, None, "x", 1.5]}), True, True),
    (Counted(3, [1]), True, True),
    (Positive(3), True, True),
    (Converted(-3), False, True),
    (OwnDefault(3), False, True),
    (Prepared(3), False, True),
    (Hashed(3), False, True),
    (OwnInit(3), False, True),
    (KeywordFirst(2, first=1), False, True),
    (Nesting(Converted(3)), False, True),
    (Private(3), False, False),
    (Aliased(3), False, False),
    (Computed(3), False, False),
    (Tree("a", (Tree("b"), Tree("c", (Tree("d"),)))), False, False),
    (Add(Add(Circle(1.0)), Circle(2.0)), False, False),
    (Shapes(Square(2), [Circle(0.5), None]), False, False),
]


@pytest.mark.parametrize(("value", "reads", "writes"), VALUES, ids=lambda v: type(v).__name__)
def test_the_shortcut_is_taken_only_where_msgspec_means_the_same(
    value: Any, reads: bool, writes: bool
) -> None:
    codec = JsonCodec()
    form = codec.form(type(value))
    assert (form.fast_to_read, form.fast_to_write) == (reads, writes)
    write, read = slow_ways(codec, type(value))
    for text in (form.encode(value), bytes(write(value))):
        if not isinstance(value, Counted):  # its constructor adds to what it is given
            assert form.decode(text) == value
        assert fingerprint(form.decode(text)) == fingerprint(read(text))
        if isinstance(value, Hashed):
            hash(form.decode(text))


@pytest.mark.parametrize("value", [v for v, reads, writes in VALUES if reads and writes], ids=str)
def test_the_shortcut_alone_carries_good_values(
    value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hides its own failures, so nothing else would tell that it is never taken."""

    def forbidden(*_: Any) -> Any:
        pytest.fail("the slow way was taken")

    monkeypatch.setattr(JsonCodec, "_slow_writer", lambda *_: forbidden)
    monkeypatch.setattr(JsonCodec, "_slow_reader", lambda *_: forbidden)
    form = JsonCodec().form(type(value))
    assert type(form.decode(form.encode(value))) is type(value)
    assert form.payload(value) is value


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("text", str),
        (3, int),
        (None, None),
        ([Line("a")], list[Line]),
        ({"a": Line("a")}, dict[str, Line]),
        (Line("a"), Line | None),
        (None, Line | None),
        (Square(1), Circle | Square),
        (Box(3), Box[int]),
        (Box([NOON]), Box[list[datetime]]),
        ((1, NOON), tuple[int, datetime]),
        ({UUID(int=1): 2}, dict[UUID, int]),
    ],
    ids=str,
)
def test_responses_of_any_form_come_back(value: Any, hint: Any) -> None:
    codec = JsonCodec()
    assert codec.decode(codec.encode(value, hint), hint) == value


def test_a_value_without_a_hint_is_written_by_its_own_class() -> None:
    codec = JsonCodec()
    for value, hint in ((None, None), ("x", str), ([Line("a")], list[Line]), (Line("b"), Line)):
        assert codec.decode(codec.encode(value), hint) == value


def test_the_identity_of_a_message_does_not_stand_in_the_body() -> None:
    codec = JsonCodec()
    for message in (Loose(), Charge(Decimal(1))):
        before = codec.encode(message)
        assert message.message_id
        assert codec.encode(message) == before
        received = codec.decode(before, type(message))
        assert received == message
        assert received.message_id != message.message_id


def test_times_come_back_in_utc() -> None:
    codec = JsonCodec()
    there = NOON.astimezone(timezone(timedelta(hours=2)))
    for text in (codec.encode(Later(when=there)), b'{"when":"2026-01-01T14:00:00+02:00"}'):
        received = codec.decode(text, Later)
        assert received.when == NOON
        assert received.when.tzinfo is UTC


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Later(when=datetime(2026, 1, 1)), "time zone"),  # noqa: DTZ001 - the point
        (Loose(float("nan")), "not-a-number"),
        (Later(when=NOON, what={"a": [float("inf")]}), "infinity"),
        (Later(when=NOON, what=nested(40)), "deeper than 32"),
        (Later(when=NOON, what={1: 2}), "keys"),
        (Later(when=NOON, what=nested(100_000)), "RecursionError"),
        (Loose("much"), "Loose"),  # type: ignore[arg-type]  # the point
        (Line("\ud800"), "UnicodeEncodeError"),
        (Shapes(Line("a"), []), "Circle, Square"),  # type: ignore[arg-type]  # the point
    ],
)
def test_what_cannot_be_carried_is_refused_with_the_reason(value: Any, words: str) -> None:
    with pytest.raises(EncodeError, match=words):
        JsonCodec().encode(value)


GOOD = b'{"order_id":"%b","placed":"2026-01-01T12:00:00Z","total":"1.5","lines":[{"sku":"a"}]}' % (
    b"00000000-0000-0000-0000-000000000007"
)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'"a"', b"1", "$.lines[0].sku: Expected `str`, got `int`"),
        (b'"sku"', b'"other"', "$.lines[0].sku: the required field 'sku' is missing"),
        (b"12:00:00Z", b"12:00:00", "$.placed: a datetime must have a time zone"),
        (b"2026-01-01T12:00:00Z", b"9999-12-31T23:59:59-10:00", "$.placed: refused with Overflow"),
        (b'"1.5"', b"true", "$.total: Expected `decimal`, got `bool`"),
        (b'"1.5"', b'"hush"', "$.total: Invalid decimal string"),
        (b"0007", b"hush", "$.order_id: Invalid UUID"),
        (b"}]}", b"}]", "$: Input data was truncated"),
        (GOOD, b"[]", "$: Expected `object`, got `array`"),
        (GOOD, b"", "$: Input data was truncated"),
        (GOOD, b"\xff", "$: JSON is malformed"),
        (b'"a"', b'"\xff"', "$: not valid UTF-8"),
        (b'{"sku"', b'{"n":' + b"[" * 100_000 + b',"sku"', "nests too deep"),
        (b'"a"', b"9" * 10_000, "$.lines[0].sku: Number out of range"),
    ],
)
def test_bad_input_is_explained_without_repeating_it(old: bytes, new: bytes, words: str) -> None:
    with pytest.raises(DecodeError, match=re.escape(words)) as caught:
        JsonCodec().decode(GOOD.replace(old, new), Order)
    assert str(caught.value).startswith("not a Order: ")
    assert "hush" not in str(caught.value)


def test_values_outside_an_enumeration_or_a_validator_are_not_repeated() -> None:
    class Mood(Enum):
        GOOD = "good"

    def look_up(word: str) -> str:
        return {"known": "known"}[word]

    @attrs.frozen
    class Looked:
        word: str = attrs.field(converter=look_up)

    for text, hint, words in (
        (b'"hush"', Mood, r"\$: Invalid enum value$"),
        (b'["hush"]', list[Literal["a", "b"]], r"\$\[0\]: Invalid enum value$"),
        (b'{"number":-77}', Positive, r"\$.*refused with ValueError"),
        (b'{"word":"hush"}', Looked, r"\$.*refused with KeyError"),
    ):
        with pytest.raises(DecodeError, match=words) as caught:
            JsonCodec().decode(text, hint)
        assert not re.search("hush|77", str(caught.value))


def test_what_cannot_be_hashed_in_a_type_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="cannot be hashed"):
        JsonCodec().decode(b"1", Annotated[int, {"a": 1}])


@pytest.mark.parametrize("depth", [32, 33, 300, 5_000, 100_000])
def test_hostile_nesting_is_a_decode_error(depth: int) -> None:
    codec = JsonCodec()
    deep = b"[" * depth + b"]" * depth
    tree = b'{"name":"","children":[' * depth + b"]}" * depth
    with pytest.raises(DecodeError):
        codec.decode(b'{"when":"2026-01-01T12:00:00Z","what":%b}' % deep, Later)
    with pytest.raises(DecodeError):
        codec.decode(tree, Tree)


@pytest.mark.parametrize("levels", [3, 14, 15, 16, 17, 30])
def test_nesting_up_to_the_limit_is_carried(levels: int) -> None:
    codec = JsonCodec()
    value = Later(when=NOON, what=nested(levels))
    assert codec.decode(codec.encode(value), Later) == value


def test_unknown_keys_are_ignored_whatever_they_hold() -> None:
    """A newer sender may add fields."""
    text = b'{"sku":"a","new":{"deep":[1e400,"\xff"]},"count":2}'
    assert JsonCodec().decode(text, Line) == Line("a", 2)


@attrs.frozen
class Odd:
    thing: Fraction


@attrs.frozen
class Numbers:
    by_number: dict[int, str]


@attrs.frozen
class Mixed:
    thing: Circle | int


@attrs.frozen
class Missing:
    thing: Nowhere  # type: ignore[name-defined]  # noqa: F821 - the point


@pytest.mark.parametrize("cls", [Odd, Numbers, Mixed, Missing, Path, object])
def test_a_type_that_json_cannot_carry_is_refused_when_registered(cls: type) -> None:
    with pytest.raises(ConfigurationError, match=f"{cls.__name__}"):
        JsonCodec().register(cls)


def test_a_taught_type_travels_wherever_it_stands() -> None:
    codec = JsonCodec()
    codec.teach(Fraction, str, Fraction)
    text = codec.encode(Odd(Fraction(1, 3)))
    assert text == b'{"thing":"1/3"}'
    assert codec.decode(text, Odd) == Odd(Fraction(1, 3))
    with pytest.raises(DecodeError, match="thing"):
        codec.decode(b'{"thing":"x/3"}', Odd)


def test_scalars_are_strict_inside_unions_too() -> None:
    codec = JsonCodec()
    for side in (b'"12"', b"true", b"1.0"):
        with pytest.raises(DecodeError, match="side"):
            codec.decode(b'{"_type":"Square","side":%b}' % side, Circle | Square)
    with pytest.raises(DecodeError, match="one of Circle, Square"):
        codec.decode(b'{"side":1}', Circle | Square)
