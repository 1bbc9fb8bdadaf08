"""Floor 3: between typed objects and the bytes on the wire.

`TypeRegistry` knows the message classes of one bus, `write_message` and `read_envelope` put them
into CloudEvents and take them out, `JsonCodec` does the data.
"""

from catga.codecs.cloudevents import read_envelope, write_envelope, write_message
from catga.codecs.json import JsonCodec, JsonForm
from catga.codecs.registry import TypeRegistry, WireType

__all__ = [
    "JsonCodec",
    "JsonForm",
    "TypeRegistry",
    "WireType",
    "read_envelope",
    "write_envelope",
    "write_message",
]
