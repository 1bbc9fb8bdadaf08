"""Drawn types, values and damaged JSON, for the laws of the codec."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from types import GenericAlias
from typing import Annotated, Any, Literal, NamedTuple, NewType
from uuid import UUID

import attrs
from hypothesis import strategies as st

from catga.codecs import JsonCodec
from catga.errors import CatgaError
from catga.model.message import Event


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 7


UserName = NewType("UserName", str)


@attrs.frozen
class Circle:
    radius: float


@attrs.frozen
class Square:
    side: int
    made: datetime | None = None


def nested(levels: int) -> list[Any]:
    """Return an empty list in so many lists."""
    tree: list[Any] = []
    for _ in range(levels):
        tree = [tree]
    return tree


class Drawn(NamedTuple):
    """A type and what its values are drawn from."""

    hint: Any
    values: st.SearchStrategy[Any]


_zones = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_moments = st.datetimes(timezones=_zones | st.just(UTC)).filter(
    lambda moment: 1 < moment.year < 9999  # in UTC the first and the last day may not exist
)
_floats = st.floats(allow_nan=False, allow_infinity=False)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | _floats | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)
_spans = st.timedeltas(timedelta(days=-9999), timedelta(days=9999))

SCALARS = [
    Drawn(int, st.integers()),
    Drawn(str, _texts),
    Drawn(float, _floats),
    Drawn(bool, st.booleans()),
    Drawn(bytes, st.binary(max_size=9)),
    Drawn(type(None), st.none()),
    Drawn(Colour, st.sampled_from(Colour)),
    Drawn(Level, st.sampled_from(Level)),
    Drawn(Literal["a", 3] | None, st.sampled_from(["a", 3, None])),
    Drawn(UserName, _texts),
    Drawn(Annotated[int, "a note"], st.integers()),
    Drawn(UUID, st.uuids()),
    Drawn(date, st.dates()),
    Drawn(Decimal, st.decimals(allow_nan=False, allow_infinity=False, places=3)),
    Drawn(datetime, _moments),
    Drawn(time, st.times()),
    Drawn(timedelta, _spans),
    Drawn(int | str | None, st.integers() | _texts | st.none()),
    Drawn(Any, _json),
    Drawn(
        Circle | Square | None,
        st.builds(Circle, _floats) | st.builds(Square, st.integers(), _moments) | st.none(),
    ),
]


def _hashable(drawn: Drawn) -> bool:
    return drawn.hint is not Any


def _wrapped(inner: Drawn) -> list[Drawn]:
    hint, values = inner
    lists = st.lists(values, max_size=3)
    found = [
        Drawn(hint | None if hint is not Any else Any, st.none() | values),
        Drawn(GenericAlias(list, hint), lists),
        Drawn(GenericAlias(dict, (str, hint)), st.dictionaries(_texts, values, max_size=3)),
        Drawn(GenericAlias(tuple, (hint, ...)), lists.map(tuple)),
        Drawn(GenericAlias(tuple, (int, hint)), st.tuples(st.integers(), values)),
    ]
    if hint in {d.hint for d in SCALARS if _hashable(d)}:
        found += [Drawn(GenericAlias(kind, hint), lists.map(kind)) for kind in (set, frozenset)]
    return found


@st.composite
def drawn_types(draw: st.DrawFn, depth: int = 2) -> Drawn:
    """Return a type with the strategy of its values: scalar, container or attrs class."""
    kind = draw(st.sampled_from(["scalar", "container", "class"] if depth else ["scalar"]))
    if kind == "class":
        return draw(drawn_classes(depth - 1))
    choice = SCALARS if kind == "scalar" else _wrapped(draw(drawn_types(depth - 1)))
    drawn: Drawn = draw(st.sampled_from(choice))
    return drawn


@st.composite
def drawn_classes(draw: st.DrawFn, depth: int = 1) -> Drawn:
    """Return an attrs class of a drawn make: frozen or not, slotted or not, with all the traps."""
    fields, values, mandatory = {}, {}, True
    for name in draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True)):
        inner = draw(drawn_types(depth))
        options: dict[str, Any] = {"type": inner.hint, "kw_only": draw(st.booleans())}
        trap = draw(st.sampled_from(["", "", "", "default", "converter", "validator", "alias"]))
        if trap == "default" or (not options["kw_only"] and not mandatory):
            options["default"] = draw(
                inner.values.filter(lambda v: v.__hash__ is not None) | st.none()
            )
            mandatory = mandatory and options["kw_only"]
        if trap == "converter":
            options["converter"] = _settle
        if trap == "validator":
            options["validator"] = _refuse_odd
        if trap == "alias":
            options["alias"] = f"{name}_alias"
        fields[name] = attrs.field(**options)
        values[options.get("alias", name)] = (
            inner.values.filter(_even) if trap == "validator" else inner.values
        )
    make: dict[str, Any] = draw(st.sampled_from([{"frozen": True}, {}, {"slots": False}]))
    bases = draw(st.sampled_from([(), (Event,)]))
    cls = attrs.make_class("Made", fields, bases=bases, class_body={"__module__": __name__}, **make)
    return Drawn(cls, st.builds(cls, **values))


def _settle(value: Any) -> Any:
    return abs(value) if type(value) is int else value


def _even(value: Any) -> bool:
    return not (isinstance(value, int) and value % 2)


def _refuse_odd(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not _even(value):
        raise ValueError(f"{attribute.name} is odd")


@st.composite
def damaged(draw: st.DrawFn, text: bytes) -> bytes:
    """Return JSON that was changed somewhere: its tree or its bytes."""
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(text)))
        return text[:at] + draw(st.sampled_from(JUNK)) + text[at + draw(st.integers(0, 2)) :]
    tree = json.loads(text)
    changed = json.dumps(draw(_changed(tree)), ensure_ascii=False).encode()
    if draw(st.booleans()):
        changed = changed.replace(b'"JUNK"', draw(st.sampled_from(JUNK)))
    return changed


JUNK = [
    b"", b"1", b"1.0", b"-0", b"1.10", b"1e400", b"1e3", b"0.1000000000000000055511151231257827",
    b"true", b"null", b'"12"', b'""', b"\xff", b'"\xff"', b'"\\ud800"', b'"\\u0041"', b"[]", b"{}",
    b"123456789012345678901234567890", b"9" * 5000, b"[" * 40 + b"]" * 40, b'"2020-01-01T00:00:00"',
    b'"2020-01-01T00:00:00+02:00"', b'"9999-12-31T23:59:59-10:00"', b'"NaN"', b"NaN",
    b'"red"', b"7",
    b'"a":1,', b'"zz":1e400,', b'"zz":"\xff",', b'{"_type":"Circle","radius":1}', b",", b"}", b'"',
]  # fmt: skip

NAIVE = datetime(2020, 1, 1)  # noqa: DTZ001 - the point
ODD_VALUES = [
    math.nan, math.inf, -math.inf, NAIVE, NAIVE.replace(tzinfo=UTC),
    datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=2))), nested(31), nested(32), nested(40),
    nested(30), nested(15), nested(16), nested(17), nested(5000), {"a": math.nan},
    {"a": [math.inf]}, {1: 2}, "\ud800", object(), 10**5000, Circle(1.0), Circle(math.nan),
    [Circle(1.0)], {"a": NAIVE}, {"a"}, (1, 2), b"bytes",
]  # fmt: skip


@st.composite
def _changed(draw: st.DrawFn, tree: Any) -> Any:
    if isinstance(tree, dict) and tree and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(sorted(tree)))
        action = draw(st.sampled_from(["into", "into", "drop", "add"]))
        rest = {k: v for k, v in tree.items() if k != key}
        if action == "drop":
            return rest
        if action == "add":
            return {**tree, "zz": "JUNK"}
        return {**rest, key: draw(_changed(tree[key]))}
    if isinstance(tree, list) and tree and draw(st.integers(0, 4)):
        at = draw(st.integers(0, len(tree) - 1))
        return [*tree[:at], draw(_changed(tree[at])), *tree[at + 1 :]]
    return draw(st.just("JUNK") | _json)


def fingerprint(value: Any) -> Any:
    """Return `value` with the type of every part beside it: 1, 1.0 and True become different."""
    if attrs.has(type(value)):
        parts: Any = [fingerprint(getattr(value, f.name)) for f in attrs.fields(type(value))]
    elif isinstance(value, dict):
        parts = [(fingerprint(k), fingerprint(v)) for k, v in value.items()]
    elif isinstance(value, list | tuple):
        parts = [fingerprint(item) for item in value]
    elif isinstance(value, set | frozenset):
        parts = sorted(map(repr, map(fingerprint, value)))
    else:
        parts = repr(value)
    return type(value).__name__, parts


def outcome(function: Any, *given: Any) -> Any:
    """Return the fingerprint of the result, or the class of the error of ours."""
    try:
        return fingerprint(function(*given))
    except CatgaError as error:
        return type(error)


def slow_ways(codec: JsonCodec, hint: Any) -> tuple[Any, Any]:
    """Return how `codec` writes and reads `hint` without the shortcut."""
    form = codec._forms.of(hint)
    return codec._slow_writer(hint), codec._slow_reader(hint, form)
