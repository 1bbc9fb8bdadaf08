"""Wire names and classes: what one bus knows, and nothing it does not."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import attrs

from catga.codecs.guards import Guard
from catga.codecs.json import JsonCodec
from catga.errors import ConfigurationError, DecodeError, UnknownTypeError
from catga.model.message import RESERVED_ATTRIBUTES, Message, Request
from catga.model.qos import QualityOfService
from catga.model.retry import RetryPolicy
from catga.model.subject import check_token

__all__ = ["TypeRegistry", "WireType"]

_UNSET = object()
_TRAITS = ("qos", "wire_name", "version", "key", "retry")


@attrs.frozen(eq=False)
class WireType:
    """One message class as the wire sees it; its functions are bound once."""

    name: str
    version: int
    qos: QualityOfService | None
    """None: the default of the settings."""
    retry: RetryPolicy | None
    """What the class says about failed attempts; None: the settings."""
    cls: type
    response: Any
    """The `R` of `Request[R]`; None when it is no request (a request without R answers `Any`)."""
    is_request: bool
    encode: Callable[[Any], bytes] = attrs.field(repr=False)
    """Raises `EncodeError`."""
    decode: Callable[[bytes, int], Any] = attrs.field(repr=False)
    """Read data that was written in this version. Raises `DecodeError`."""
    payload: Callable[[Any], Any] = attrs.field(repr=False)
    """Return what may be written in place of the message: itself or a `msgspec.Raw`."""
    encode_response: Callable[[Any], bytes] = attrs.field(repr=False)
    decode_response: Callable[[bytes], Any] = attrs.field(repr=False)
    fast_to_read: bool = False
    """Whether msgspec reads it by itself, as far as `read_guard` (None: always) says."""
    read_guard: Guard | None = attrs.field(default=None, repr=False)


class TypeRegistry:
    """The message classes of one bus, by class and by wire name."""

    def __init__(self, codec: JsonCodec | None = None) -> None:
        self.codec = JsonCodec() if codec is None else codec
        self._by_class: dict[type, WireType] = {}
        self._by_name: dict[str, WireType] = {}

    def register(self, cls: type) -> WireType:
        """Return the wire type of `cls`, working it out the first time.

        Raises `ConfigurationError` with the reason when it cannot be a message.
        """
        known = self._by_class.get(cls)
        if known is not None:
            return known
        wire = self._inspect(cls)
        other = self._by_name.get(wire.name)
        if other is not None:
            raise ConfigurationError(
                f"{_full(cls)} and {_full(other.cls)} both have the wire name {wire.name!r}: give "
                "one of them a wire_name of its own"
            )
        self._by_class[cls] = self._by_name[wire.name] = wire
        return wire

    def of(self, cls: type) -> WireType:
        """Return the wire type of `cls`, registering it the first time."""
        try:
            return self._by_class[cls]
        except KeyError:
            return self.register(cls)

    def request(self, cls: type) -> WireType:
        """As `of`, for what is to be answered. Raises `ConfigurationError` for anything else."""
        wire = self.of(cls)
        if not wire.is_request:
            raise ConfigurationError(
                f"{_full(cls)} is no Request and has no answer: publish or send it, or derive it "
                "from Request[…]"
            )
        return wire

    def named(self, name: str) -> WireType:
        """Return the wire type called `name`. Raises `UnknownTypeError`."""
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownTypeError(
                f"no class is registered for the wire name {name[:64]!r}"
            ) from None

    def names(self) -> tuple[str, ...]:
        """Return every registered wire name, sorted."""
        return tuple(sorted(self._by_name))

    def _inspect(self, cls: type) -> WireType:
        if not (isinstance(cls, type) and attrs.has(cls) and "__attrs_attrs__" in vars(cls)):
            raise ConfigurationError(
                f"{_full(cls)} is not an attrs class: put @attrs.frozen or @attrs.define on it"
            )
        _check_names(cls)
        name, version = _wire_name(cls), _version(cls)
        form = self.codec.form(cls)
        response = _response_of(cls)
        answers = self.codec.form(None if response is _UNSET else response)
        return WireType(
            name=name,
            version=version,
            qos=_qos(cls),
            retry=_retry(cls),
            cls=cls,
            response=None if response is _UNSET else response,
            is_request=issubclass(cls, Request),
            encode=form.encode,
            decode=_versioned(form.decode, name, version),
            payload=form.payload,
            encode_response=answers.encode,
            decode_response=answers.decode,
            fast_to_read=form.fast_to_read,
            read_guard=form.read_guard,
        )


def _versioned(
    read: Callable[[bytes], Any], name: str, version: int
) -> Callable[[bytes, int], Any]:
    def decode(data: bytes, written: int) -> Any:
        if written != version:  # the place reserved for upcasters
            raise DecodeError(
                f"{name} came in version {written}; here it is version {version}, and there is no "
                "upcaster between them"
            )
        return read(data)

    return decode


def _full(cls: Any) -> str:
    return f"{cls.__module__}.{cls.__qualname__}" if isinstance(cls, type) else repr(cls)[:80]


def _check_names(cls: type) -> None:
    fields = {field.name for field in attrs.fields(cls)}
    for name in _TRAITS:
        if name in fields:
            raise ConfigurationError(
                f"{_full(cls)}.{name} is annotated and so became a field: write {name} = … without "
                "an annotation"
            )
    for name in RESERVED_ATTRIBUTES:
        shadowed = issubclass(cls, Message) and getattr(cls, name) is not getattr(Message, name)
        if name in fields or shadowed:
            raise ConfigurationError(
                f"{_full(cls)}.{name} hides the identity of the message, which is not a field: "
                "give it another name"
            )


def _wire_name(cls: type) -> str:
    # inherited, it would name two classes alike
    name = vars(cls).get("wire_name")
    return check_token(cls.__name__ if name is None else name, f"wire name of {cls.__qualname__}")


def _version(cls: type) -> int:
    version = getattr(cls, "version", 1)
    if type(version) is int and version >= 1:
        return version
    raise ConfigurationError(f"{_full(cls)}.version must be an integer from 1, not {version!r}")


def _qos(cls: type) -> QualityOfService | None:
    qos = getattr(cls, "qos", None)
    if qos is None or isinstance(qos, QualityOfService):
        return qos
    raise ConfigurationError(f"{_full(cls)}.qos must be a QualityOfService, not {qos!r}")


def _retry(cls: type) -> RetryPolicy | None:
    retry = getattr(cls, "retry", None)
    if retry is None or isinstance(retry, RetryPolicy):
        return retry
    raise ConfigurationError(f"{_full(cls)}.retry must be a RetryPolicy, not {retry!r}")


def _response_of(cls: type, bound: Mapping[Any, Any] = MappingProxyType({})) -> Any:
    """Return the `R` of the `Request[R]` that `cls` derives from, also through generic bases."""
    for written in vars(cls).get("__orig_bases__", cls.__bases__):
        base = typing.get_origin(written) or written
        if issubclass(base, Request):
            given = [bound.get(arg, arg) for arg in typing.get_args(written)]
            if base is Request:
                return given[0] if given and not isinstance(given[0], TypeVar) else Any
            return _response_of(base, dict(zip(_parameters(base), given, strict=False)))
    return _UNSET


def _parameters(cls: type) -> tuple[Any, ...]:
    return getattr(cls, "__parameters__", ())
