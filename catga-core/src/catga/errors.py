"""Every error Catga raises, arranged by what the caller can do about it.

The root is `CatgaError`. Errors carry their facts as attributes; the message says what to do next.
No error ever holds credentials: addresses are shown without user information.
"""

from __future__ import annotations

__all__ = [
    "AuthenticationError",
    "CapabilityError",
    "CatgaError",
    "CodecError",
    "ConfigurationError",
    "ConnectionLost",
    "DecodeError",
    "EncodeError",
    "LeaseLost",
    "NoHandler",
    "NoResponders",
    "NodeTaken",
    "PayloadTooLarge",
    "PluginConflictError",
    "PluginError",
    "PluginIncompatibleError",
    "PluginLoadError",
    "PublishRejected",
    "PublishUnknown",
    "RemoteError",
    "RequestTimeout",
    "SettlementError",
    "SubscriptionClosed",
    "TransportError",
    "UnknownTypeError",
]


class CatgaError(Exception):
    """The root of everything Catga raises."""


class ConfigurationError(CatgaError):
    """The program or its settings are wrong: correct them and start again."""


class CapabilityError(CatgaError):
    """A promise that was asked for cannot be kept by this transport or this server."""


class PluginError(CatgaError):
    """A plugin could not be used; the others still work.

    `plugin` is the name of its entry point, `distribution` and `version` say where it came from.
    """

    def __init__(
        self, message: str, plugin: str = "", distribution: str = "", version: str = ""
    ) -> None:
        super().__init__(message)
        self.plugin = plugin
        self.distribution = distribution
        self.version = version


class PluginLoadError(PluginError):
    """A plugin did not import, or its hooks are misspelt or raise."""


class PluginConflictError(PluginError):
    """Two plugins claim one name; both are off for it until one is switched off."""


class PluginIncompatibleError(PluginError):
    """A plugin was written for another version of the plugin interface."""


class TransportError(CatgaError):
    """Something between the bus and the broker failed."""


class ConnectionLost(TransportError):
    """The broker is not there, or went away; nothing was handed over unless said otherwise."""


class AuthenticationError(TransportError):
    """The broker refused the credentials or the permission; trying again will not help."""


class PublishRejected(TransportError):
    """The message was surely not stored."""


class PublishUnknown(TransportError):
    """The message was stored zero or one time, now or later.

    Only publishing the same message (the same id) again at a quality of service that
    deduplicates is safe; the bus has already done so until its deadline passed.
    """


class PayloadTooLarge(PublishRejected):
    """The encoded message is over the broker's limit; nothing was sent.

    `size_bytes` is what it takes (body and headers), `limit_bytes` what the broker accepts.
    """

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"the message takes {size_bytes} bytes, the broker accepts {limit_bytes}: "
            "make it smaller, or raise the limit on the server"
        )
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class LeaseLost(TransportError):
    """The delivery, or the id of the node, is not ours any more; nothing done here has an effect
    on it."""


class NodeTaken(TransportError):
    """Another node holds this id, and lives: give each node an id of its own."""


class SubscriptionClosed(TransportError):
    """The subscription was closed and delivers nothing more."""


class CodecError(CatgaError):
    """A message and its bytes do not fit each other."""


class EncodeError(CodecError):
    """The message cannot be written: a field holds what its type cannot carry."""


class DecodeError(CodecError):
    """The bytes are not a message of the expected type."""


class UnknownTypeError(CodecError):
    """No class is registered for this wire name."""


class SettlementError(CatgaError):
    """A delivery could not be settled."""


class NoHandler(CatgaError):
    """Nothing here handles this type."""


class NoResponders(CatgaError):
    """Nobody listens for this request; it was not handled."""


class RemoteError(CatgaError):
    """The handler of a request failed at the other side.

    `type_name` is the class name of the error there.
    """

    def __init__(self, type_name: str, message: str) -> None:
        super().__init__(f"the handler failed with {type_name}: {message}")
        self.type_name = type_name


class RequestTimeout(CatgaError, TimeoutError):
    """No response came in time. At QoS 1 and 2 the outcome is unknown: it may still be handled."""
