"""Effects that are committed together with the completion of a message, or not at all."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs

from catga.engine.extras import Extras
from catga.errors import CapabilityError, ConfigurationError, PayloadTooLarge
from catga.model.capability import Capability
from catga.model.qos import QualityOfService
from catga.model.subject import check_token
from catga.spi import Command, EffectKey, Effects, EffectStore, Found, Outgoing, Transport

__all__ = ["Atomic", "Encode", "Transaction"]

_MOST = 500
_ROOM = 1024
"""Bytes that a broker's headers around one value may take."""
_KEY = re.compile(r"[\x21-\x7e]{1,128}")


Encode = Callable[[Any, QualityOfService | None, str, Extras], Awaitable[Outgoing]]
"""Makes of a message, a quality and a destination what a transport is handed, as a publish of the
bus does before it sends."""


class Transaction:
    """What one run of a handler reads, writes and publishes.

    Nothing is written before the handler has returned; then everything is, together with the
    record that this group completed this message, or nothing. When another commit has changed
    what was read here, the handler runs again as the same attempt, at growing pauses. What comes
    after the handler has returned raises `ConfigurationError`.
    """

    __slots__ = (
        "_atomic",
        "_checker",
        "_commands",
        "_ended",
        "_found",
        "_limit",
        "_outgoing",
        "_store",
        "_writes",
    )

    def __init__(self, atomic: Atomic, store: EffectStore) -> None:
        self._atomic = atomic
        self._store = store
        self._limit = atomic.transport.max_payload_bytes
        self._ended = False
        self._commands: list[Command] = []
        self._checker: Callable[[Command], None] | None = None
        self._outgoing: list[Outgoing] = []
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
        self._check_size(len(value))
        self._writes[self._key(key)] = value

    def delete(self, key: str) -> None:
        """Let `key` be gone once this message is completed."""
        self._writes[self._key(key)] = None

    def command(self, *words: str | bytes | float) -> None:
        """Let the commit run a command of the broker's own: `tx.command("INCRBY", key, 5)`.

        Its key is one of the program's, for anybody to read; `key` makes one that a commit reaches.
        What it answers is not told. It is not compared with what was read, so that two commits do
        not conflict over it. Nothing is rolled back by such a broker: only commands are taken whose
        every way to fail is looked at before anything is written. What stands in their way then (a
        value of another type, a counter that holds no integer) fails the handler, and nothing was
        written.

        Raises `CapabilityError` where the broker has no commands, and `ConfigurationError` for one
        that is not taken, whose words are wrong, or whose key is Catga's own or out of reach.
        """
        atomic, command = self._atomic, tuple(map(_word, words))
        who = f"context.transaction.command of {atomic.type}"
        atomic.transport.capabilities.require(Capability.COMMANDS, who)
        self._check_size(sum(map(len, command)))
        self._check_count(len(self._names()) + 1)
        if self._checker is None:
            self._checker = self._store.checker(atomic.namespace, atomic.type)
        self._checker(command)
        self._commands.append(command)

    def key(self, name: str) -> str:
        """Return a key for `command` that one commit reaches together with the message.

        It is the same for every group. Raises `CapabilityError` where the broker has no commands.
        """
        atomic = self._atomic
        who = f"context.transaction.key of {atomic.type}"
        atomic.transport.capabilities.require(Capability.COMMANDS, who)
        return self._store.own_key(atomic.namespace, atomic.type, name)

    async def publish(
        self,
        message: Any,
        *,
        qos: QualityOfService | None = None,
        message_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Let the message be published by the commit, or not at all; return its id.

        Nothing leaves before the handler has returned. A new message gets an id derived from the
        handled one, as with `Bus.publish`. There is no receipt: whether an id that was given by
        hand had been stored before is not told.

        Raises `ConfigurationError` for a type that is sent at QoS 0 (nothing stores it) and for
        more than one commit may have (500), and what `Bus.publish` raises before it sends.
        """
        return await self._publish(message, qos, "", Extras(message_id, headers=headers))

    async def send(
        self,
        message: Any,
        *,
        to: str,
        qos: QualityOfService | None = None,
        message_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Let the message be sent to one group by the commit. As `publish` in everything else."""
        check_token(to, "destination")
        return await self._publish(message, qos, to, Extras(message_id, headers=headers))

    async def _publish(
        self, message: Any, qos: QualityOfService | None, to: str, extras: Extras
    ) -> str:
        who = f"context.transaction.publish of {self._atomic.type}"
        self._atomic.transport.capabilities.require(Capability.ATOMIC_PUBLISH, who)
        outgoing = await self._atomic.encode(message, qos, to, extras)
        if outgoing.qos is QualityOfService.AT_MOST_ONCE:
            raise ConfigurationError(
                f"{outgoing.subject.type} is sent at QoS 0, where nothing is stored: it cannot be "
                "part of a commit; use bus.publish"
            )
        self._check_size(len(outgoing.body))
        self._check_count(len(self._names()) + 1)
        self._outgoing.append(outgoing)
        return outgoing.message_id

    def effects(self) -> Effects:
        """Return what is to be compared, written and published; nothing can be added then."""
        self._ended = True
        return Effects(
            dict(self._found), dict(self._writes), tuple(self._outgoing), tuple(self._commands)
        )

    def _names(self) -> set[EffectKey]:
        return {*self._found, *self._writes}

    def _check_size(self, length: int) -> None:
        size = length + _ROOM
        if self._limit is not None and size > self._limit:
            raise PayloadTooLarge(size, self._limit)

    def _check_count(self, names: int) -> None:
        if self._ended:
            raise ConfigurationError(
                f"the transaction of {self._atomic.type} is over, for its handler has returned: "
                "let it await whatever writes"
            )
        if names + len(self._outgoing) + len(self._commands) > _MOST:
            raise ConfigurationError(
                f"a transaction has at most {_MOST} keys, commands and messages together"
            )

    def _key(self, key: str) -> EffectKey:
        if not (isinstance(key, str) and _KEY.fullmatch(key)):
            raise ConfigurationError(
                "a key of a transaction is 1 to 128 printable ASCII characters without spaces, "
                f"not {str(key)[:40]!r}"
            )
        atomic = self._atomic
        name = EffectKey(atomic.namespace, atomic.group, atomic.type, key)
        self._check_count(len({name} | self._names()))
        return name


def _word(word: str | bytes | float) -> bytes:
    if isinstance(word, bytes):
        return word
    if isinstance(word, str):
        return word.encode()
    if isinstance(word, int | float) and not isinstance(word, bool):
        return str(word).encode()
    raise ConfigurationError(f"a word of a command is text, bytes or a number, not {word!r}")


@attrs.frozen
class Atomic:
    """Begins the transactions of one handler, or says why there are none."""

    transport: Transport
    namespace: str
    group: str
    type: str
    encode: Encode

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
        return Transaction(self, self.transport.effects)
