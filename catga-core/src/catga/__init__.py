"""Catga: messages with a quality of service, over process memory, NATS or Redis.

Declare messages as attrs classes, say with each which quality of service it needs, and run the
same application over any transport that is installed.
"""

from catga.bus import Bus, Parts
from catga.engine.context import Context
from catga.engine.deadletters import DeadLetter
from catga.engine.discovery import Discovery
from catga.engine.letterbox import DeadLetters, LetterFilter
from catga.errors import (
    AuthenticationError,
    CapabilityError,
    CatgaError,
    CodecError,
    ConfigurationError,
    ConnectionLost,
    DecodeError,
    EncodeError,
    LeaseLost,
    NodeTaken,
    NoHandler,
    NoResponders,
    PayloadTooLarge,
    PluginConflictError,
    PluginError,
    PluginIncompatibleError,
    PluginLoadError,
    PublishRejected,
    PublishUnknown,
    RemoteError,
    RequestTimeout,
    SettlementError,
    SubscriptionClosed,
    TransportError,
    UnknownTypeError,
)
from catga.model.message import Event, Message, Request, identify
from catga.model.node import ChangeKind, Node, NodeChange
from catga.model.outcome import Drained, PublishSummary, Receipt
from catga.model.qos import QualityOfService
from catga.model.retry import Reject, Retry, RetryPolicy
from catga.router import Router
from catga.settings import Settings
from catga.spi.middleware import Instrument, Middleware

__all__ = [
    "AuthenticationError",
    "Bus",
    "CapabilityError",
    "CatgaError",
    "ChangeKind",
    "CodecError",
    "ConfigurationError",
    "ConnectionLost",
    "Context",
    "DeadLetter",
    "DeadLetters",
    "DecodeError",
    "Discovery",
    "Drained",
    "EncodeError",
    "Event",
    "Instrument",
    "LeaseLost",
    "LetterFilter",
    "Message",
    "Middleware",
    "NoHandler",
    "NoResponders",
    "Node",
    "NodeChange",
    "NodeTaken",
    "Parts",
    "PayloadTooLarge",
    "PluginConflictError",
    "PluginError",
    "PluginIncompatibleError",
    "PluginLoadError",
    "PublishRejected",
    "PublishSummary",
    "PublishUnknown",
    "QualityOfService",
    "Receipt",
    "Reject",
    "RemoteError",
    "Request",
    "RequestTimeout",
    "Retry",
    "RetryPolicy",
    "Router",
    "Settings",
    "SettlementError",
    "SubscriptionClosed",
    "TransportError",
    "UnknownTypeError",
    "identify",
]
