"""JSON, the content type Catga speaks by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import msgspec

from catga.codecs.converter import make_converter
from catga.codecs.explain import explain
from catga.codecs.forms import Form, Forms, unwrap
from catga.codecs.guards import Guard
from catga.codecs.plain import Refused, check_tree
from catga.errors import ConfigurationError, DecodeError, EncodeError
from catga.spi.codec import Codec

__all__ = ["JsonCodec", "JsonForm", "as_it_is"]

_write_text = msgspec.json.Encoder(decimal_format="string", uuid_format="canonical").encode


@attrs.frozen
class JsonForm:
    """One type's way to and from JSON text, bound once."""

    payload: Callable[[Any], Any]
    """Return what msgspec may write in place of the value: itself, or a finished `msgspec.Raw`.
    Raises `EncodeError`."""
    encode: Callable[[Any], bytes]
    """Raises `EncodeError`."""
    decode: Callable[[bytes], Any]
    """Raises `DecodeError`."""
    fast_to_read: bool
    """Whether msgspec reads it by itself, as far as `read_guard` (None: always) says."""
    read_guard: Guard | None
    fast_to_write: bool


class JsonCodec(Codec):
    """attrs classes, scalars and collections as JSON.

    cattrs says what a type means, msgspec handles the text, and where both are proven to agree
    msgspec does it alone. Scalars are strict, datetimes are aware and come back in UTC, unknown
    keys are ignored, a missing key takes the default or is refused. `Any` holds JSON data: richer
    values come back as what JSON made of them.
    """

    content_type = "application/json"

    def __init__(self) -> None:
        self._converter = make_converter()
        self._forms = Forms()
        self._bound: dict[Any, JsonForm] = {}

    def teach(self, cls: type, write: Callable[[Any], Any], read: Callable[[Any], Any]) -> None:
        """Add a type of your own: `write` makes JSON data of it, `read` makes it of JSON data.

        Teach before the first class that uses it is registered.
        """
        self._forms.taught.add(cls)
        self._converter.register_unstructure_hook(cls, write)
        self._converter.register_structure_hook(cls, lambda value, _: read(value))

    def register(self, cls: type) -> None:
        """Prepare for `cls`. Raises `ConfigurationError` when JSON can never carry it."""
        self.form(cls)

    def form(self, hint: Any) -> JsonForm:
        """Return the bound ways of a class or typing form, e.g. `list[Line] | None`.

        Raises `ConfigurationError` when JSON can never carry it.
        """
        try:
            return self._bound[hint]
        except KeyError:
            bound = self._bound[hint] = self._bind(hint)
            return bound
        except TypeError:  # an unhashable extra in Annotated
            return self._bind(hint)

    def encode(self, value: Any, hint: Any = None) -> bytes:
        """Return the JSON of `value`, as `hint` when given (lists have no class that tells).

        Raises `EncodeError`, or `ConfigurationError` for a class JSON can never carry.
        """
        return self.form(type(value) if hint is None else hint).encode(value)

    def decode(self, data: bytes, cls: Any) -> Any:
        """Return the `cls` (a class or typing form) that `data` holds. Raises `DecodeError`."""
        return self.form(cls).decode(data)

    def _bind(self, hint: Any) -> JsonForm:
        form = self._forms.of(hint)
        try:
            write_slow = self._slow_writer(hint)
            read_slow = self._slow_reader(hint, form)
            fast = msgspec.json.Decoder(hint).decode if form.reads else None
        except Exception as error:  # neither library says what it may raise on an odd class
            raise ConfigurationError(f"JSON cannot carry {_name(hint)}: {error}") from error
        payload = _fast_payload(form.write_guard, write_slow) if form.writes else write_slow
        return JsonForm(
            payload=payload,
            encode=_fast_writer(payload, write_slow) if form.writes else _bytes_writer(write_slow),
            decode=_fast_reader(fast, form.read_guard, read_slow) if fast else read_slow,
            fast_to_read=form.reads,
            read_guard=form.read_guard,
            fast_to_write=form.writes,
        )

    def _slow_writer(self, hint: Any) -> Callable[[Any], msgspec.Raw]:
        unstructure = self._converter.get_unstructure_hook(unwrap(hint))

        def write(value: Any) -> msgspec.Raw:
            try:
                tree = unstructure(value)
                check_tree(tree)
                return msgspec.Raw(_write_text(tree))
            except Exception as error:
                raise EncodeError(_blame(value, error)) from error

        return write

    def _slow_reader(self, hint: Any, form: Form) -> Callable[[bytes], Any]:
        hint = unwrap(hint)
        structure = self._converter.get_structure_hook(hint)
        parse = msgspec.json.Decoder(form.shape).decode
        deep, name = form.deep, _name(hint)

        def read(data: bytes) -> Any:
            try:
                tree = parse(data)
                if deep:
                    check_tree(tree)
                return structure(tree, hint)
            except Exception as error:
                raise DecodeError(f"not a {name}: {explain(error)}") from error

        return read


def as_it_is(value: Any) -> Any:
    """Return the value: nothing has to be asked of it before msgspec writes it."""
    return value


def _name(hint: Any) -> str:
    return getattr(hint, "__qualname__", None) or str(hint)


def _blame(value: Any, error: Exception) -> str:
    words = str(error) if type(error) in (Refused, TypeError) else type(error).__name__
    return f"the {type(value).__name__} cannot be written as JSON: {words}"


def _bytes_writer(write: Callable[[Any], msgspec.Raw]) -> Callable[[Any], bytes]:
    return lambda value: bytes(write(value))


def _fast_payload(guard: Guard | None, slow: Callable[[Any], msgspec.Raw]) -> Callable[[Any], Any]:
    if guard is None:
        return as_it_is

    def payload(value: Any) -> Any:
        try:
            stands = guard(value)
        except Exception:  # a field of the wrong type: the slow way says so
            stands = False
        return value if stands else slow(value)

    return payload


def _fast_writer(
    payload: Callable[[Any], Any], slow: Callable[[Any], msgspec.Raw]
) -> Callable[[Any], bytes]:
    def write(value: Any) -> bytes:
        try:
            return _write_text(payload(value))
        except EncodeError:
            raise
        except Exception:  # whatever msgspec dislikes, the slow way decides
            return bytes(slow(value))

    return write


def _fast_reader(
    parse: Callable[[bytes], Any], guard: Guard | None, slow: Callable[[bytes], Any]
) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            value = parse(data)
            if guard is None or guard(value):
                return value
        except Exception:  # noqa: S110 - whatever msgspec dislikes, the slow way decides
            pass
        return slow(data)

    return read
