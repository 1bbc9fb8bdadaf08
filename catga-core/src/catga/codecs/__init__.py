"""Floor 3: between typed objects and the bytes on the wire.

`TypeRegistry` knows the message classes of one bus, `EventWriter` and `EventReader` put them
into CloudEvents and take them out, `JsonCodec` does the data.
"""

from catga.codecs.cloudevents import EventWriter, read_envelope, write_envelope
from catga.codecs.json import JsonCodec, JsonForm
from catga.codecs.reader import UNREAD, EventReader
from catga.codecs.registry import TypeRegistry, WireType

__all__ = [
    "UNREAD",
    "EventReader",
    "EventWriter",
    "JsonCodec",
    "JsonForm",
    "TypeRegistry",
    "WireType",
    "read_envelope",
    "write_envelope",
]
