"""What all consumers of one bus share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs

from catga.engine.publishing import Publisher
from catga.engine.requests import Responder
from catga.engine.signals import Signals
from catga.engine.transaction import Encode
from catga.ground.clock import Clock
from catga.ground.tasks import TaskOwner
from catga.spi import Source, Subscription, Transport, TransportEvent

__all__ = ["Services"]


@attrs.frozen(eq=False)
class Services:
    """What all consumers of one bus share."""

    transport: Transport
    publisher: Publisher
    responder: Responder
    clock: Clock
    tasks: TaskOwner
    signals: Signals
    random: Callable[[], float]
    service: str
    window: int
    lease_limit: float
    encode: Encode
    """What a publish of the bus does before it sends."""
    emit: Callable[[TransportEvent], None]
    resubscribe: Callable[[Source], Awaitable[Subscription]]
    """Prepare a vanished source once more and subscribe again."""
    be_exact: Callable[[Source], Awaitable[None]]
    """Make sure of what a message at QoS 2 takes, in a group that did not expect one. Raises
    `CapabilityError` when it cannot be kept."""
