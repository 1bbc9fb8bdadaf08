"""What the laws of the NATS transport are tried with."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs

from catga.ground.clock import SystemClock
from catga.ground.ids import new_instance, new_message_id
from catga.ground.tasks import TaskOwner
from catga.spi import (
    Address,
    Delivery,
    EventKind,
    Kind,
    Mode,
    Outgoing,
    QualityOfService,
    Runtime,
    Secret,
    Source,
    Subject,
    Subscription,
    Topology,
    TransportEvent,
)
from catga_nats import NatsSettings
from catga_nats.client import GuardedClient
from catga_nats.plugin import catga_transports
from catga_nats.transport import NatsTransport

DEADLINE = 15.0
_counter = itertools.count(1)


def fresh_namespace() -> str:
    return f"t{os.getpid()}-{next(_counter)}"


@attrs.define
class Opened:
    """An open transport and what it has told."""

    transport: NatsTransport
    events: list[TransportEvent]
    namespace: str

    @property
    def client(self) -> GuardedClient:
        connection = self.transport._connection
        assert connection is not None
        return connection.client

    async def ask(self, call: str, body: Any = None) -> dict[str, Any]:
        """Call the JetStream API from beside the transport; an error is a failure."""
        (answer,) = await self.transport._api.call([(call, body)])
        assert isinstance(answer, dict), answer
        return answer

    def told(self, kind: EventKind) -> list[str]:
        return [event.detail for event in self.events if event.kind is kind]

    async def prepare(
        self,
        *sources: Source,
        qos: QualityOfService = QualityOfService.AT_LEAST_ONCE,
        mode: Mode = Mode.CREATE,
        **changed: Any,
    ) -> None:
        topology = Topology(
            self.namespace, ("Order",), sources, qos, dedupe_window=600.0, completion_ttl=86_400.0
        )
        await self.transport.prepare(attrs.evolve(topology, **changed), mode)

    async def subscribe(self, source: Source) -> Subscription:
        if source.durable:
            await self.prepare(source)
        return await self.transport.subscribe(source)

    def source(self, group: str = "billing", **changed: Any) -> Source:
        start = Source(self.namespace, "Order", group, durable=True)
        return attrs.evolve(start, **changed)

    def outgoing(
        self,
        body: bytes = b"{}",
        message_id: str | None = None,
        kind: Kind = Kind.LOG,
        group: str = "",
        qos: QualityOfService = QualityOfService.AT_LEAST_ONCE,
        **more: Any,
    ) -> Outgoing:
        subject = Subject(self.namespace, kind, "Order", group)
        return Outgoing(subject, body, message_id or new_message_id(), qos, **more)


def address_of(url: str, **changed: Any) -> Address:
    login, _, rest = url.removeprefix("nats://").rpartition("@")
    host, _, port = rest.partition(":")
    user, _, password = login.partition(":")
    address = Address(
        "nats",
        ((host, int(port)),),
        username=Secret(user) if user else None,
        password=Secret(password) if password else None,
    )
    return attrs.evolve(address, **changed)


@asynccontextmanager
async def opened(
    address: str | Address,
    namespace: str | None = None,
    *,
    connect_deadline: float = 5.0,
    also_given: frozenset[str] = frozenset(),
    **settings: Any,
) -> AsyncIterator[Opened]:
    """Open a transport; close it and what it spawned at the end.

    `also_given`: settings of the bus that somebody gave by name.
    """
    (descriptor,) = catga_transports()
    where = address_of(address) if isinstance(address, str) else address
    transport = descriptor.factory(where, NatsSettings(**settings), also_given | settings.keys())
    assert isinstance(transport, NatsTransport)
    owner = TaskOwner()
    events: list[TransportEvent] = []
    runtime = Runtime(
        SystemClock(), owner.spawn, events.append, new_instance(), "tests", connect_deadline
    )
    try:
        await transport.open(runtime)
        yield Opened(transport, events, namespace or fresh_namespace())
    finally:
        await transport.close()
        await owner.close()


async def collect(subscription: Subscription, count: int) -> list[Delivery]:
    """Receive until `count` deliveries are there."""
    got: list[Delivery] = []
    deadline = time.monotonic() + DEADLINE
    while len(got) < count:
        assert time.monotonic() < deadline, f"{len(got)} of {count} came"
        got += await subscription.receive(count - len(got), 0.5)
    return got


async def nothing_comes(subscription: Subscription, seconds: float = 0.3) -> None:
    assert await subscription.receive(10, seconds) == []


async def until(
    condition: Callable[[], Awaitable[bool]] | Callable[[], bool], seconds: float = DEADLINE
) -> None:
    """Await a condition, at most so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        met = condition()
        if (await met) if isinstance(met, Awaitable) else met:
            return
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.01)
