"""Effects that are committed together with the completion of a message, or not at all."""

from __future__ import annotations

import re

import attrs

from catga.errors import CapabilityError, ConfigurationError, PayloadTooLarge
from catga.model.capability import Capability
from catga.spi import EffectKey, Effects, EffectStore, Found, Transport

__all__ = ["Atomic", "Transaction"]

_MOST_KEYS = 500
_ROOM = 1024
"""Bytes that a broker's headers around one value may take."""
_KEY = re.compile(r"[\x21-\x7e]{1,128}")


class Transaction:
    """What one run of a handler reads and writes.

    Nothing is written before the handler has returned; then everything is, together with the
    record that this group completed this message, or nothing. When another commit has changed
    what was read here, the handler runs again, at once and as the same attempt.
    """

    __slots__ = ("_found", "_group", "_limit", "_namespace", "_store", "_type", "_writes")

    def __init__(
        self, store: EffectStore, namespace: str, group: str, type_: str, limit: int | None = None
    ) -> None:
        self._store = store
        self._limit = limit
        self._namespace = namespace
        self._group = group
        self._type = type_
        self._found: dict[EffectKey, Found] = {}
        self._writes: dict[EffectKey, bytes | None] = {}

    async def read(self, key: str) -> bytes | None:
        """Return what stands under `key` (this group's own, for this type), None when nothing.

        What this run wrote is read back; what it read before stays as it was. Raises
        `ConfigurationError` for a key that is not 1 to 128 printable ASCII characters without
        spaces, `TransportError` when the store cannot tell.
        """
        name = self._key(key)
        if name in self._writes:
            return self._writes[name]
        found = self._found.get(name)
        if found is None:
            (found,) = await self._store.read([name])
            self._found[name] = found
        return found.value

    def write(self, key: str, value: bytes) -> None:
        """Let `key` be `value` once this message is completed.

        Raises `ConfigurationError` as `read`, for a value that is not bytes and for more keys than
        one commit may have (500), `PayloadTooLarge` for a value the broker would not take.
        """
        if not isinstance(value, bytes):
            raise ConfigurationError(f"a transaction writes bytes, not {type(value).__name__}")
        size = len(value) + _ROOM
        if self._limit is not None and size > self._limit:
            raise PayloadTooLarge(size, self._limit)
        self._writes[self._key(key)] = value

    def delete(self, key: str) -> None:
        """Let `key` be gone once this message is completed."""
        self._writes[self._key(key)] = None

    def effects(self) -> Effects:
        """Return what is to be compared and written."""
        return Effects(dict(self._found), dict(self._writes))

    def _key(self, key: str) -> EffectKey:
        if not (isinstance(key, str) and _KEY.fullmatch(key)):
            raise ConfigurationError(
                "a key of a transaction is 1 to 128 printable ASCII characters without spaces, "
                f"not {str(key)[:40]!r}"
            )
        name = EffectKey(self._namespace, self._group, self._type, key)
        if len({name, *self._found, *self._writes}) > _MOST_KEYS:
            raise ConfigurationError(f"a transaction has at most {_MOST_KEYS} keys")
        return name


@attrs.frozen
class Atomic:
    """Begins the transactions of one handler, or says why there are none."""

    transport: Transport
    namespace: str
    group: str
    type: str

    def begin(self, *, exactly_once: bool) -> Transaction:
        """Return a new one. Raises `CapabilityError` when nothing could keep its promise."""
        who = f"context.transaction of {self.type}"
        if not exactly_once:
            raise CapabilityError(
                f"{who} needs QoS 2: without a record of what the group completed, a second "
                "delivery would write everything again"
            )
        self.transport.capabilities.require(Capability.ATOMIC, who)
        if self.transport.effects is None:
            raise CapabilityError(f"{who}: the transport offers no store of effects")
        limit = self.transport.max_payload_bytes
        return Transaction(self.transport.effects, self.namespace, self.group, self.type, limit)
