"""The transport interface over NATS core and JetStream."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from catga.errors import CatgaError, ConnectionLost, TransportError
from catga.spi import (
    Address,
    Capabilities,
    Capability,
    DeadLetterStore,
    EffectStore,
    EventKind,
    Health,
    InboxStore,
    Mode,
    NodeStore,
    Outgoing,
    PublishResult,
    Records,
    Rejected,
    Runtime,
    Source,
    Subscription,
    Topology,
    Transport,
)
from catga_nats import names
from catga_nats.api import Call, JetStreamApi
from catga_nats.bucket import Bucket
from catga_nats.connection import Connection
from catga_nats.discovery import KvNodes
from catga_nats.errors import ApiError
from catga_nats.inbox import KvInbox
from catga_nats.incoming import Reader
from catga_nats.later import Mover, Way, committed, delayed
from catga_nats.letters import StreamLetters
from catga_nats.live import LiveSubscription
from catga_nats.overflow import Overflow
from catga_nats.plugin import CAPABILITIES
from catga_nats.provisioning import Provisioner
from catga_nats.publishing import Publisher
from catga_nats.pull import PullSubscription
from catga_nats.settings import NatsSettings
from catga_nats.transactions import TxStore, is_atomic
from catga_nats.wanted import WAITING_LEASE, Wants

__all__ = ["NatsTransport"]

_NO_JETSTREAM = (
    "JetStream is off on this server: start nats-server with -js, or put jetstream {} into its "
    "configuration"
)
_STORED = (
    Capability.AT_LEAST_ONCE,
    Capability.EXACTLY_ONCE,
    *(Capability.ATOMIC, Capability.ATOMIC_PUBLISH),
    Capability.DEAD_LETTERS,
    Capability.DELAY,
    Capability.DISCOVERY,
    Capability.FOREVER,
)
_ABSENT = {
    Capability.PARK: "JetStream stores a dead letter and settles its original in two steps",
    Capability.COMMANDS: "JetStream has no commands: a transaction writes keys and publishes",
    Capability.COMMIT: "JetStream acknowledges and records in two steps",
    Capability.HANDLED: "JetStream does not tell a publisher when a group has handled a message",
}
_PULSE = 1.0

Wanted: TypeAlias = Callable[[str, Mode], Awaitable[bool]]
"""Asks the server whether somebody has to carry something in a namespace."""


class NatsTransport(Transport):
    """`nats://` and `tls://`: core NATS at QoS 0, JetStream at QoS 1 and 2."""

    def __init__(self, address: Address, settings: NatsSettings, explicit: frozenset[str]) -> None:
        self._address = address
        self._settings = settings
        self._wants = Wants(settings, explicit)
        self._capabilities = Capabilities(CAPABILITIES, _ABSENT)
        self._numbers = itertools.count(1)
        self._connection: Connection | None = None
        self._runtime: Runtime
        self._api: JetStreamApi
        self._provisioner: Provisioner
        self._publisher: Publisher
        self._inbox: KvInbox | None = None
        self._effects: TxStore | None = None
        self._letters: StreamLetters | None = None
        self._ways: set[Way] = set()
        self._subscriptions: list[PullSubscription | LiveSubscription] = []

    @property
    def capabilities(self) -> Capabilities:
        """What this server offers."""
        return self._capabilities

    @property
    def max_payload_bytes(self) -> int | None:
        """The server's `max_payload`, which counts body and headers."""
        return self._connection.client.max_payload if self._connection is not None else None

    @property
    def server(self) -> str:
        """The server's name for itself is not in its INFO: it is always a nats-server."""
        return f"nats-server {self._connection.client.server_version}" if self._connection else ""

    @property
    def effects(self) -> EffectStore | None:
        """The keys of transactions, where the server can commit them."""
        return self._effects

    @property
    def inbox(self) -> InboxStore | None:
        """The records in JetStream, when it is there."""
        return self._inbox

    @property
    def dead_letters(self) -> DeadLetterStore | None:
        """The stream of dead letters, when JetStream is there."""
        return self._letters

    async def open(self, runtime: Runtime) -> None:
        """Connect, then find out what the server can do."""
        self._runtime = runtime
        connection = Connection(self._address, self._settings, runtime)
        await connection.open()
        self._connection = connection
        self._api = JetStreamApi(connection.mux, runtime.clock)
        self._provisioner = Provisioner(connection, self._api, self._wants)
        ack_timeout = self._settings.publish_ack_timeout.total_seconds()
        self._publisher = Publisher(connection, ack_timeout, self._provisioner.log_config)
        connection.on_reconnected.append(self._reconnected)
        try:
            await self._probe(connection)
        except BaseException:
            await self.close()
            raise
        runtime.spawn(self._pulse(connection), "catga-nats-pulse")

    async def _probe(self, connection: Connection) -> None:
        info = await self._api.info()
        if isinstance(info, ApiError):
            reason = _NO_JETSTREAM if info.err_code == 0 else f"no JetStream: {info}"
            absent = {**_ABSENT, **dict.fromkeys(_STORED, reason)}
            self._capabilities = Capabilities(CAPABILITIES - set(_STORED), absent)
        else:
            self._inbox = KvInbox(connection, self._provisioner.streams)
            if is_atomic(connection.version):
                self._effects = TxStore(connection, self._provisioner.streams, self._inbox)
            else:
                found = ".".join(map(str, connection.version))
                reason = f"atomic batches came with nats-server 2.12, this one is {found}"
                gone = dict.fromkeys((Capability.ATOMIC, Capability.ATOMIC_PUBLISH), reason)
                absent = {**_ABSENT, **gone}
                self._capabilities = Capabilities(CAPABILITIES - {*gone}, absent)
            self._letters = StreamLetters(connection, self._api)

    async def prepare(self, topology: Topology, mode: Mode) -> None:
        """Create or verify streams, the bucket of completion records, and consumers."""
        self._need()
        records = topology.records is Records.ONLY
        if records or topology.publishes or any(each.durable for each in topology.sources):
            self._capabilities.require(Capability.AT_LEAST_ONCE, "storing messages")
        await self._provisioner.prepare(topology, mode)
        self._publisher.for_ever = math.isinf(topology.dedupe_window)
        namespace = topology.namespace
        await self._carry(delayed(namespace), self._provisioner.needs_mover, namespace, mode)
        if topology.sources:
            await self._carry(committed(namespace), self._provisioner.has_outbox, namespace, mode)

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        """Hand over or store each."""
        if self._connection is None:
            return [Rejected(ConnectionLost("the transport is not open"))] * len(batch)
        return await self._publisher.publish(batch)

    async def subscribe(self, source: Source) -> Subscription:
        """Open a live, reply, durable or ephemeral subscription."""
        connection = self._need()
        subscription: PullSubscription | LiveSubscription
        if source.durable:
            subscription = await self._pull(connection, source)
        else:
            limit = self._settings.live_buffer
            subscription = LiveSubscription(connection, self._runtime, source, limit)
        try:
            await subscription.start()
        except BaseException:
            await subscription.close()
            raise
        self._subscriptions.append(subscription)
        return subscription

    async def _pull(self, connection: Connection, source: Source) -> PullSubscription:
        name = names.consumer(source)
        if source.ephemeral:
            name = f"{self._runtime.instance}-{next(self._numbers)}={source.type}"
            await self._provisioner.create_ephemeral(source, name)
        reader = Reader(source, self._provisioner.lease(source, name))
        overflow = None
        if not source.ephemeral:  # such a group has no subject of its own
            limit = self._provisioner.unsettled_limit(source, name)
            overflow = Overflow(self._publisher, self._runtime.clock, source, limit)
        subscription = PullSubscription(
            connection, self._api, self._runtime, source, name, reader, overflow
        )
        subscription.effects = self._effects
        return subscription

    async def _carry(self, way: Way, wanted: Wanted, namespace: str, mode: Mode) -> None:
        """Carry on what lies there, from now on, if there is or can be something."""
        if way not in self._ways and await wanted(namespace, mode):
            self._ways.add(way)
            work = self._move(way, lambda: wanted(namespace, mode))
            self._runtime.spawn(work, f"catga-nats-{way.consumer}-{namespace}")

    async def _move(self, way: Way, wanted: Callable[[], Awaitable[bool]]) -> None:
        """Carry what is due to its target, for as long as there may be something."""
        mover = Mover(self._publisher, self._api, self._runtime.clock, way)
        while (connection := self._connection) is not None:
            trouble = ""
            subscription = self._reading(connection, way)
            self._subscriptions.append(subscription)
            try:
                await subscription.start()
                await mover.run(subscription)
            except Exception as error:  # else nobody would move anything any more
                trouble = str(error) or repr(error)
            await subscription.close()
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
            await self._runtime.clock.sleep(_PULSE)
            with contextlib.suppress(CatgaError):  # it is asked again in a while
                if not await wanted():
                    self._ways.discard(way)
                    return
            if trouble and self._connection is connection:
                connection.emit(EventKind.TROUBLE, f"{way.what} in {way.stream}: {trouble}")

    def _reading(self, connection: Connection, way: Way) -> PullSubscription:
        source = Source(way.stream, way.consumer, way.consumer, durable=True)
        reader = Reader(source, WAITING_LEASE, all_headers=True)
        return PullSubscription(
            connection,
            self._api,
            self._runtime,
            source,
            way.consumer,
            reader,
            stream=way.stream,
        )

    def node_store(self, namespace: str, ttl: float, mode: Mode) -> NodeStore:
        """The bucket of nodes of a namespace."""
        self._capabilities.require(Capability.DISCOVERY, "seeing nodes")
        connection = self._need()
        bucket = Bucket(connection, self._api, names.nodes_bucket(namespace))
        return KvNodes(connection, self._provisioner, bucket, namespace, ttl, mode)

    async def remove(self, namespace: str) -> None:
        """Delete the streams of this namespace."""
        self._need()
        if Capability.AT_LEAST_ONCE in self._capabilities:
            await self._provisioner.remove(namespace)

    async def health(self) -> Health:
        """Make a round trip, and ask for the streams in use."""
        connection = self._connection
        if connection is None or not await connection.client.answers(1.0):
            return Health(ok=False, detail=f"not connected to {self._address.shown}")
        pulling = [
            each
            for each in self._subscriptions
            if isinstance(each, PullSubscription) and not each.drained
        ]
        streams = tuple(self._provisioner.streams)  # of now: there may be more by the answers
        calls: list[Call] = [(f"STREAM.INFO.{name}", None) for name in streams]
        calls += [each.info for each in pulling]
        try:
            results = await self._api.try_once(calls, 1.0)
        except TransportError as error:
            return Health(ok=False, detail=str(error))
        of_streams, of_consumers = results[: len(streams)], results[len(streams) :]
        wrong = self._provisioner.weakened(dict(zip(streams, of_streams, strict=True)))
        told = [each.take_in(result) for each, result in zip(pulling, of_consumers, strict=True)]
        wrong += filter(None, told)
        return Health(ok=not wrong, detail="; ".join(wrong))

    async def close(self) -> None:
        """Close the subscriptions, then the connection."""
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            await subscription.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def _need(self) -> Connection:
        if self._connection is None:
            raise ConnectionLost("the transport is not open")
        return self._connection

    async def _reconnected(self) -> None:
        durable = [each for each in self._subscriptions if isinstance(each, PullSubscription)]
        if self._need().server_restarted:
            for each in durable:  # all of them before anything else can happen
                each.doubt()
        live = [each for each in self._subscriptions if isinstance(each, LiveSubscription)]
        if live:
            words = f"{len(live)} live subscription(s) were without a connection"
            self._need().emit(EventKind.GAP, words)
        for each in durable:
            await each.restart()

    async def _pulse(self, connection: Connection) -> None:
        while self._connection is connection:
            await self._runtime.clock.sleep(_PULSE)
            for each in tuple(self._subscriptions):
                if isinstance(each, PullSubscription):
                    await each.pulse()
