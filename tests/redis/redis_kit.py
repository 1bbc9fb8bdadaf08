"""What the laws of the Redis transport share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from catga.ground.clock import SystemClock
from catga.ground.ids import new_instance, new_message_id
from catga.ground.tasks import TaskOwner
from catga.spi import (
    Address,
    Delivery,
    InboxStore,
    Kind,
    Mode,
    Outgoing,
    PublishResult,
    QualityOfService,
    Receipt,
    Runtime,
    Secret,
    Source,
    Subject,
    Subscription,
    Topology,
    TransportEvent,
)
from catga_redis.settings import RedisSettings
from catga_redis.testing import RedisServer
from catga_redis.transport import RedisTransport

NAMESPACE = "law"
DEADLINE = 10.0


def address_of(server: RedisServer, password: str | None = None) -> Address:
    secret = None if password is None else Secret(password)
    return Address("redis", (("127.0.0.1", server.port),), password=secret)


class Lab:
    """One event loop's worth of transports on one server; everything is closed at the end."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.events: list[TransportEvent] = []
        self.tasks = TaskOwner()
        self.transports: list[RedisTransport] = []

    def runtime(self, connect_deadline: float = 3.0) -> Runtime:
        return Runtime(
            SystemClock(),
            self.tasks.spawn,
            self.events.append,
            new_instance(),
            "lab",
            connect_deadline,
        )

    async def transport(
        self, explicit: frozenset[str] = frozenset(), **settings: Any
    ) -> RedisTransport:
        transport = RedisTransport(self.address, RedisSettings(**settings), explicit)
        await transport.open(self.runtime())
        self.transports.append(transport)
        return transport

    async def member(
        self, transport: RedisTransport, type_: str, group: str = "workers", **source: Any
    ) -> Subscription:
        """Prepare and open one durable subscription."""
        wanted = Source(NAMESPACE, type_, group, durable=True, **source)
        await transport.prepare(topology(wanted), Mode.CREATE)
        return await transport.subscribe(wanted)

    async def close(self) -> None:
        for transport in self.transports:
            await transport.close()
        await self.tasks.close()


@asynccontextmanager
async def lab(server: RedisServer) -> AsyncIterator[Lab]:
    bench = Lab(address_of(server))
    try:
        yield bench
    finally:
        await bench.close()


@asynccontextmanager
async def admin(server: RedisServer) -> AsyncIterator[Redis]:
    client = Redis(host="127.0.0.1", port=server.port)
    try:
        yield client
    finally:
        await client.aclose()


def topology(
    *sources: Source,
    qos: QualityOfService = QualityOfService.EXACTLY_ONCE,
    publishes: tuple[str, ...] = (),
    accept_risk: frozenset[str] = frozenset(),
    window: float = 60.0,
    **more: Any,
) -> Topology:
    return Topology(
        NAMESPACE, publishes, sources, qos, window, 120.0, accept_risk=accept_risk, **more
    )


def out(
    type_: str,
    body: bytes = b"{}",
    *,
    qos: int = 1,
    message_id: str | None = None,
    kind: Kind | None = None,
    group: str = "",
    reply_to: Subject | None = None,
) -> Outgoing:
    if kind is None:
        kind = Kind.LOG if qos else Kind.LIVE
    return Outgoing(
        Subject(NAMESPACE, kind, type_, group),
        body,
        message_id or new_message_id(),
        QualityOfService(qos),
        reply_to,
    )


def accepted(results: Sequence[PublishResult]) -> list[Receipt]:
    """Return the results, each of which must be a receipt."""
    receipts = [each for each in results if isinstance(each, Receipt)]
    assert len(receipts) == len(results), results
    return receipts


def inbox_of(transport: RedisTransport) -> InboxStore:
    inbox = transport.inbox
    assert inbox is not None
    return inbox


async def gather_deliveries(
    subscription: Subscription, count: int, deadline: float = DEADLINE
) -> list[Delivery]:
    """Receive until there are `count`; fails after the deadline."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline
    found: list[Delivery] = []
    while len(found) < count:
        left = end - loop.time()
        assert left > 0, f"only {len(found)} of {count} came"
        found += await subscription.receive(count - len(found), min(left, 1.0))
    return found


async def nothing_more(subscription: Subscription, wait: float = 0.3) -> bool:
    return await subscription.receive(10, wait) == []


async def until(
    condition: Callable[[], Awaitable[bool]] | Callable[[], bool], deadline: float = DEADLINE
) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline
    while True:
        met = condition()
        if met if isinstance(met, bool) else await met:
            return
        assert loop.time() < end, "the condition was never met"
        await asyncio.sleep(0.02)
