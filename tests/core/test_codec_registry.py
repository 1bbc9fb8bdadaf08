"""Which classes can be messages, and what the registry finds out about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import attrs
import pytest

from catga.codecs import TypeRegistry
from catga.errors import ConfigurationError, DecodeError, UnknownTypeError
from catga.model.message import Event, Request
from catga.model.qos import QualityOfService

R = TypeVar("R")


@attrs.frozen
class Answer:
    words: str


@attrs.frozen
class Ask(Request[Answer]):
    qos = QualityOfService.EXACTLY_ONCE
    version = 3
    wire_name = "ask-it"
    words: str = ""


@attrs.frozen
class AskList(Request[list[Answer] | None]):
    words: str = ""


@attrs.frozen
class AskNothing(Request[None]):
    words: str = ""


class Query(Request[R], Generic[R]):
    __slots__ = ()


@attrs.frozen
class AskQuery(Query[Answer]):
    words: str = ""


@attrs.frozen
class AskAnything(Request):  # type: ignore[type-arg]  # the point
    words: str = ""


@attrs.frozen
class Told(Event):
    words: str = ""


@attrs.frozen
class ToldLouder(Told):
    volume: int = 11


def test_what_a_class_says_of_itself_is_found() -> None:
    wire = TypeRegistry().register(Ask)
    assert (wire.name, wire.version, wire.qos, wire.cls) == (
        "ask-it",
        3,
        QualityOfService.EXACTLY_ONCE,
        Ask,
    )
    plain = TypeRegistry().register(Told)
    assert (plain.name, plain.version, plain.qos, plain.is_request) == ("Told", 1, None, False)


@pytest.mark.parametrize(
    ("cls", "response", "value"),
    [
        (Ask, Answer, Answer("x")),
        (AskList, list[Answer] | None, [Answer("x")]),
        (AskNothing, type(None), None),
        (AskQuery, Answer, Answer("x")),
        (AskAnything, Any, {"a": 1}),
    ],
)
def test_the_response_type_is_found_and_travels(cls: type, response: Any, value: Any) -> None:
    wire = TypeRegistry().register(cls)
    assert wire.is_request
    assert wire.response == response
    assert wire.decode_response(wire.encode_response(value)) == value


def test_one_class_is_registered_once_and_found_by_its_name() -> None:
    types = TypeRegistry()
    wire = types.register(Ask)
    assert types.register(Ask) is wire
    assert types.of(Ask) is wire
    assert types.named("ask-it") is wire
    assert types.of(Told).name == "Told"
    assert types.names() == ("Told", "ask-it")
    with pytest.raises(UnknownTypeError, match="Nobody"):
        types.named("Nobody")


def test_a_subclass_is_a_message_of_its_own() -> None:
    types = TypeRegistry()
    assert types.register(Told).name != types.register(ToldLouder).name


def test_two_registries_know_nothing_of_each_other() -> None:
    TypeRegistry().register(Ask)
    assert TypeRegistry().names() == ()


def test_two_classes_with_one_wire_name_are_refused() -> None:
    @attrs.frozen
    class Other(Event):
        wire_name = "ask-it"

    types = TypeRegistry()
    types.register(Ask)
    with pytest.raises(ConfigurationError, match=r"Ask.*Other|Other.*Ask"):
        types.register(Other)


def _event(**body: Any) -> type:
    return attrs.frozen(type("Made", (Event,), {"__module__": __name__, **body}))


def _annotated(name: str, value: Any = attrs.NOTHING) -> type:
    return attrs.make_class("Made", {name: attrs.field(type=int, default=value)}, bases=(Event,))


@dataclass
class Data:
    words: str = ""


class Bare(Event):
    pass


class BareChild(Told):
    """Lacks its own decorator: its new annotations would silently be no fields."""

    extra: int = 0


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (_annotated("qos"), "annotated"),
        (_annotated("version", 1), "annotated"),
        (_annotated("message_id"), "identity"),
        (_annotated("created_at"), "identity"),
        (_annotated("correlation_id"), "identity"),
        (_event(message_id="x"), "identity"),
        (_event(correlation_id=property(lambda self: "x")), "identity"),
        (_event(qos=1), "QualityOfService"),
        (_event(qos="EXACTLY_ONCE"), "QualityOfService"),
        (_event(version="2"), "version"),
        (_event(version=0), "version"),
        (_event(version=True), "version"),
        (_event(wire_name="a b"), "wire name"),
        (_event(wire_name="a.>"), "wire name"),
        (_event(wire_name="x" * 65), "wire name"),
        (_event(wire_name=""), "wire name"),
        (_event(wire_name="a\r\nb"), "wire name"),
        (Data, "attrs"),
        (Bare, "attrs"),
        (BareChild, "attrs"),
        (dict, "attrs"),
        ("Told", "attrs"),
        (attrs.make_class("Bad", {"a": attrs.field(type=object)}), "Bad.a"),
    ],
)
def test_what_cannot_be_a_message_is_refused_with_the_reason(cls: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        TypeRegistry().register(cls)


def test_any_attrs_class_can_be_sent() -> None:
    wire = TypeRegistry().register(Answer)
    assert (wire.name, wire.qos, wire.version) == ("Answer", None, 1)


@pytest.mark.parametrize("version", [1, 2, 4])
def test_another_version_needs_an_upcaster(version: int) -> None:
    wire = TypeRegistry().register(Ask)
    data = wire.encode(Ask("why"))
    assert wire.decode(data, 3) == Ask("why")
    with pytest.raises(DecodeError, match=rf"version {version}; here it is version 3.*upcaster"):
        wire.decode(data, version)
