"""The transport interface over one Redis or Valkey server, or a cluster of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import suppress

from catga.errors import (
    CapabilityError,
    CatgaError,
    ConnectionLost,
)
from catga.spi import (
    Address,
    Capabilities,
    Capability,
    DeadLetterStore,
    EffectStore,
    EventKind,
    Health,
    InboxStore,
    Kind,
    Mode,
    NodeStore,
    Outgoing,
    PublishResult,
    QualityOfService,
    Rejected,
    Runtime,
    Source,
    Start,
    Subject,
    Subscription,
    Topology,
    Transport,
    check_token,
)
from catga_redis.checks import Risk, find_risks, parse_info
from catga_redis.cluster import Cluster, check_cluster_address
from catga_redis.deadletters import RedisDeadLetters
from catga_redis.dial import Dialer
from catga_redis.discovery import RedisNodes
from catga_redis.effects import RedisEffects
from catga_redis.errors import REPLY_ERRORS
from catga_redis.groups import create_groups, declare_types, forget_members, verify_groups
from catga_redis.inbox import RedisInbox
from catga_redis.live import LiveHub
from catga_redis.looking import look_at
from catga_redis.names import shard_channel, source_streams, stream_key
from catga_redis.plugin import CAPABILITIES, CLUSTER_SCHEMES
from catga_redis.publisher import Publisher
from catga_redis.reader import GroupReader
from catga_redis.sentinel import SentinelDialer
from catga_redis.servers import OneServer, Servers
from catga_redis.session import Session
from catga_redis.settings import RedisSettings
from catga_redis.streams import LogSubscription
from catga_redis.wire import Wire

__all__ = ["RedisTransport"]

_ABSENT = {Capability.HANDLED: "Redis does not say when every group has settled an entry"}
_CAPABILITIES = Capabilities(CAPABILITIES, _ABSENT)
_OF_A_CLUSTER = Capabilities(
    CAPABILITIES - {Capability.ATOMIC_PUBLISH},
    {
        **_ABSENT,
        Capability.ATOMIC_PUBLISH: "on a cluster no script reaches the slot of another type: "
        "use bus.publish in the handler, whose ids are derived, or one server",
    },
)
_HEALTH_SECONDS = 2.0


class RedisTransport(Transport):
    """One server, alone or found through Sentinel; or a cluster."""

    def __init__(
        self, address: Address, settings: RedisSettings, explicit: frozenset[str] = frozenset()
    ) -> None:
        self._settings = settings
        self._explicit = explicit
        self._connect = _how_to_connect(address, settings)
        self._where = address.shown
        self._sharded = address.scheme in CLUSTER_SCHEMES
        self._session: Session | None = None
        self._publisher: Publisher | None = None
        self._inbox: RedisInbox | None = None
        self._effects: RedisEffects | None = None
        self._hubs: dict[int, LiveHub] = {}
        self._readers: dict[tuple[str, int], GroupReader] = {}
        self._opening = asyncio.Lock()
        self._subscriptions: list[Subscription] = []
        self._warned: set[str] = set()
        self._server = ""

    def __repr__(self) -> str:
        return f"<RedisTransport {self._where}>"

    @property
    def capabilities(self) -> Capabilities:
        """Everything but knowing when all groups have handled a message; on a cluster also but
        publishing in a commit."""
        return _OF_A_CLUSTER if self._sharded else _CAPABILITIES

    @property
    def max_payload_bytes(self) -> int | None:
        """The server's `proto-max-bulk-len`, or the smaller setting."""
        return None if self._session is None else self._session.max_body

    @property
    def server(self) -> str:
        """From the reply of `HELLO`: Redis and Valkey tell their own name and version there."""
        return self._server

    @property
    def effects(self) -> EffectStore | None:
        """The keys of transactions, on the same server."""
        return self._effects

    @property
    def inbox(self) -> InboxStore | None:
        """Records on the same server."""
        return self._inbox

    @property
    def dead_letters(self) -> DeadLetterStore | None:
        """Beside the streams they come from."""
        return None if self._session is None else RedisDeadLetters(self._session)

    async def open(self, runtime: Runtime) -> None:
        """Connect and look at the server."""
        servers = self._connect(runtime)
        session = Session(servers, self._settings, runtime)
        await servers.open()
        try:
            async with asyncio.timeout(runtime.connect_deadline):
                self._server = await look_at(session)
        except TimeoutError as error:
            await servers.close()
            raise ConnectionLost(f"{session.where} does not answer") from error
        except BaseException:
            await servers.close()
            raise
        self._session = session
        self._publisher = Publisher(session)
        self._inbox = RedisInbox(session)
        self._effects = RedisEffects(session)

    async def prepare(self, topology: Topology, mode: Mode) -> None:
        """Check the assumptions, then make or verify groups and explicit settings."""
        session = self._need()
        session.for_ever = math.isinf(topology.dedupe_window)
        if not session.for_ever:
            session.window_ms = max(1, int(topology.dedupe_window * 1000))
        session.completion_ms = max(1, int(topology.completion_ttl * 1000))
        await self._check_assumptions(session, topology)
        try:
            asked = self._settings.max_length if "max_length" in self._explicit else None
            await declare_types(session, topology, asked)
            for source in topology.sources:
                if not source.durable or source.ephemeral:
                    continue  # an ephemeral group is made by its subscription
                streams = source_streams(source, source.group)
                if mode is Mode.VERIFY:
                    await verify_groups(session, streams)
                else:
                    start = b"$" if source.start is Start.NEW else b"0"
                    await create_groups(session, streams, start)
        except REPLY_ERRORS as error:
            raise session.failure(error) from error

    async def _check_assumptions(self, session: Session, topology: Topology) -> None:
        if topology.qos is QualityOfService.AT_MOST_ONCE:
            return
        for risk in [each for wire in session.servers.wires for each in await self._risks(wire)]:
            if (
                topology.qos is QualityOfService.EXACTLY_ONCE
                and risk.refused
                and risk.name not in topology.accept_risk
            ):
                raise CapabilityError(
                    f"{session.where} cannot keep exactly once: {risk.detail} "
                    f'(or take the risk: accept_risk=["{risk.name}"])'
                )
            self._warn(risk.name, risk.detail)

    async def _risks(self, wire: Wire) -> list[Risk]:
        info: dict[str, str] | None = None
        appendfsync: str | None = None
        with suppress(*REPLY_ERRORS):
            info = parse_info(await wire.call(b"INFO"))
            _, how = await wire.call(b"CONFIG", b"GET", b"appendfsync")
            appendfsync = how.decode()
        return find_risks(info, appendfsync, self._settings.max_length)

    def _warn(self, name: str, detail: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            self._need().emit(EventKind.RISK, f"{name}: {detail}")

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        """Hand over or store each."""
        if self._publisher is None:
            lost = ConnectionLost(f"the transport of {self._where} is not open")
            return [Rejected(lost)] * len(batch)
        return await self._publisher.publish(batch)

    async def subscribe(self, source: Source) -> Subscription:
        """Open a live, reply or durable subscription."""
        session = self._need()
        subscription: Subscription
        try:
            if source.durable:
                subscription = await self._subscribe_durable(session, source)
            else:
                subscription = await self._hub_for(session, source).subscribe(source)
        except REPLY_ERRORS as error:
            raise session.failure(error) from error
        self._subscriptions.append(subscription)
        return subscription

    def _hub_for(self, session: Session, source: Source) -> LiveHub:
        """One for all; on a cluster one for each type, and one anywhere for the responses."""
        key = (
            b""
            if source.reply
            else shard_channel(Subject(source.namespace, Kind.LIVE, source.type))
        )
        return self._hubs.setdefault(session.servers.place(key), LiveHub(session, key))

    async def _subscribe_durable(self, session: Session, source: Source) -> Subscription:
        group = source.group
        if source.ephemeral:
            group = f"{session.runtime.instance}-{len(self._subscriptions)}"
            await create_groups(session, source_streams(source, group), b"$", ephemeral=True)
        key = stream_key(Subject(source.namespace, Kind.LOG, source.type))
        place = (group, session.servers.place(key))
        async with self._opening:
            reader = self._readers.get(place)
            if reader is None:
                reader = GroupReader(session, group, key)
                await reader.open()
                self._readers[place] = reader
        subscription = LogSubscription(session, source, group, reader)
        await forget_members(session, subscription.streams)
        await subscription.announce()
        reader.join(subscription)
        return subscription

    def node_store(self, namespace: str, ttl: float, mode: Mode) -> NodeStore:
        """The nodes of a namespace; keys come and go, so there is nothing to create."""
        del ttl, mode
        return RedisNodes(self._need(), namespace)

    async def remove(self, namespace: str) -> None:
        """Delete every key of the namespace; looks through the whole database once."""
        session = self._need()
        pattern = f"{{{check_token(namespace, 'namespace')}[:}}]*"
        for wire in session.servers.wires:
            cursor = b"0"
            while True:
                cursor, keys = await wire.call(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", 1000)
                for reply in await session.servers.ask([(b"UNLINK", key) for key in keys]):
                    if isinstance(reply, Exception):
                        raise session.failure(reply) from reply
                if cursor == b"0":
                    break

    async def health(self) -> Health:
        """Ask for a `PING` on each connection that publishes and settles; those that listen say
        whether they may."""
        session = self._session
        if session is None:
            return Health(ok=False, detail="the transport is not open")
        asked = (wire.call(b"PING", patience=_HEALTH_SECONDS) for wire in session.servers.wires)
        try:
            await asyncio.gather(*asked)
        except (CatgaError, *REPLY_ERRORS) as error:
            return Health(ok=False, detail=str(session.failure(error)))
        troubles = (session.servers.trouble(), *(hub.trouble for hub in self._hubs.values()))
        trouble = "; ".join(filter(None, troubles))
        return Health(ok=not trouble, detail=trouble)

    async def close(self) -> None:
        """Close the subscriptions and disconnect."""
        session, self._session = self._session, None
        self._publisher = None
        if session is None:
            return
        for subscription in self._subscriptions:
            await subscription.close()
        for reader in self._readers.values():
            await reader.close()
        for hub in self._hubs.values():
            await hub.close()
        await session.servers.close()

    def _need(self) -> Session:
        if self._session is None:
            raise ConnectionLost(f"the transport of {self._where} is not open")
        return self._session


def _how_to_connect(address: Address, settings: RedisSettings) -> Callable[[Runtime], Servers]:
    """Return what makes the servers of a bus. Raises `ConfigurationError` for a wrong address."""
    if address.scheme in CLUSTER_SCHEMES:
        check_cluster_address(address)
        return lambda runtime: Cluster(address, settings, runtime)
    sentinel = address.scheme == "redis+sentinel"
    dialer = (SentinelDialer if sentinel else Dialer)(address, settings)
    patience = settings.reply_timeout.total_seconds()
    return lambda runtime: OneServer(dialer, runtime, patience)
