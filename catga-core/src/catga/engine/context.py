"""What a handler may know about the delivery it works on."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Protocol

from catga.engine.transaction import Atomic, Transaction
from catga.errors import CapabilityError
from catga.model.envelope import Envelope
from catga.model.qos import QualityOfService
from catga.spi import Delivery, Effects

__all__ = ["CURRENT", "Context", "InHand"]


class Context:
    """One delivery, as its handler sees it. Read only."""

    __slots__ = ("_atomic", "_delivery", "_envelope", "_transaction", "group", "qos")

    def __init__(
        self,
        envelope: Envelope,
        delivery: Delivery,
        group: str,
        qos: QualityOfService,
        atomic: Atomic | None = None,
    ) -> None:
        self._atomic = atomic
        self._transaction: Transaction | None = None
        self._envelope = envelope
        self._delivery = delivery
        self.group = group
        """The consumer group of the handler; empty for a broadcast listener."""
        self.qos = qos
        """The stricter of what the message was sent with and what the handler's type asks for."""

    @property
    def message_id(self) -> str:
        """The id of the message; the same in every attempt and every group."""
        return self._envelope.id

    @property
    def type(self) -> str:
        """The wire name of the message."""
        return self._envelope.type

    @property
    def exactly_once(self) -> bool:
        """Whether this group records what it completed: what is published here then carries ids
        derived from this message, so that another run publishes nothing new."""
        return bool(self.group) and self.qos is QualityOfService.EXACTLY_ONCE

    @property
    def correlation_id(self) -> str | None:
        """What ties it to the message that caused it."""
        return self._envelope.correlation_id

    @property
    def attempt(self) -> int:
        """1 for the first delivery to this group, counted by the broker."""
        return self._delivery.attempt

    @property
    def sent_at(self) -> datetime:
        """When the sender created it, by the sender's clock, in UTC."""
        return self._envelope.time

    @property
    def source(self) -> str:
        """The service that sent it."""
        return self._envelope.source

    @property
    def headers(self) -> Mapping[str, str]:
        """The user's headers."""
        return self._envelope.headers

    @property
    def subject(self) -> str:
        """Where it was sent to."""
        return self._delivery.subject.text

    @property
    def idempotency_key(self) -> str:
        """A key for effects that no transaction reaches: the same in every attempt of this group.

        A run that ends after its effect and before its completion is recorded leaves the effect,
        and the next one has it again: whoever gets this key with it can tell that it is the same.
        """
        return f"{self.group}:{self._envelope.type}:{self._envelope.id}"

    @property
    def transaction(self) -> Transaction:
        """Reads and writes that are committed together with the completion of this message.

        Raises `CapabilityError` below QoS 2, and where the broker cannot do it in one step.
        """
        if self._transaction is None:
            if self._atomic is None:
                raise CapabilityError("context.transaction needs a durable group at QoS 2")
            self._transaction = self._atomic.begin(exactly_once=self.exactly_once)
        return self._transaction

    @property
    def effects(self) -> Effects | None:
        """What the transaction wrote so far, None when there is none."""
        return None if self._transaction is None else self._transaction.effects()

    def __repr__(self) -> str:
        return f"<Context {self.subject} {self.message_id} attempt {self.attempt}>"


class InHand(Protocol):
    """What has a context, made when first asked for."""

    @property
    def context(self) -> Context | None:
        """The delivery as its handler sees it."""


CURRENT: ContextVar[InHand | None] = ContextVar("catga_delivery", default=None)
"""The delivery whose handler runs here, if one does."""
