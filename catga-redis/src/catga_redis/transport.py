"""The transport interface over one Redis or Valkey server."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Sequence
from typing import Any

from redis.exceptions import BusyLoadingError

from catga.errors import (
    AuthenticationError,
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
    Mode,
    NodeStore,
    Outgoing,
    PublishResult,
    QualityOfService,
    Rejected,
    Runtime,
    Source,
    Start,
    Subscription,
    Topology,
    Transport,
    check_token,
)
from catga_redis.checks import check_server, find_risks, parse_info
from catga_redis.deadletters import RedisDeadLetters
from catga_redis.dial import Dialer
from catga_redis.discovery import RedisNodes
from catga_redis.effects import RedisEffects
from catga_redis.errors import REPLY_ERRORS
from catga_redis.groups import create_groups, declare_types, forget_members, verify_groups
from catga_redis.inbox import RedisInbox
from catga_redis.live import LiveHub
from catga_redis.names import source_streams
from catga_redis.plugin import CAPABILITIES
from catga_redis.publisher import Publisher
from catga_redis.reader import GroupReader
from catga_redis.sentinel import SentinelDialer
from catga_redis.session import Session
from catga_redis.settings import RedisSettings
from catga_redis.streams import LogSubscription
from catga_redis.wire import Wire, pack_command

__all__ = ["RedisTransport"]

_CAPABILITIES = Capabilities(
    CAPABILITIES, {Capability.HANDLED: "Redis does not say when every group has settled an entry"}
)
_HEALTH_SECONDS = 2.0
_LOADING_PAUSE = 0.05


class RedisTransport(Transport):
    """One server, alone or found through Sentinel; not a cluster."""

    def __init__(
        self, address: Address, settings: RedisSettings, explicit: frozenset[str] = frozenset()
    ) -> None:
        self._settings = settings
        self._explicit = explicit
        sentinel = address.scheme == "redis+sentinel"
        self._dialer = (SentinelDialer if sentinel else Dialer)(address, settings)
        self._session: Session | None = None
        self._publisher: Publisher | None = None
        self._inbox: RedisInbox | None = None
        self._effects: RedisEffects | None = None
        self._hub: LiveHub | None = None
        self._readers: dict[str, GroupReader] = {}
        self._opening = asyncio.Lock()
        self._subscriptions: list[Subscription] = []
        self._warned: set[str] = set()
        self._server = ""

    def __repr__(self) -> str:
        return f"<RedisTransport {self._dialer.where}>"

    @property
    def capabilities(self) -> Capabilities:
        """Everything but knowing when all groups have handled a message."""
        return _CAPABILITIES

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
        patience = self._settings.reply_timeout.total_seconds()
        wire = Wire(self._dialer, runtime, "commands", patience)
        session = Session(self._dialer, self._settings, runtime, wire)
        await wire.open()
        try:
            async with asyncio.timeout(runtime.connect_deadline):
                await self._look_at_server(session)
        except TimeoutError as error:
            await wire.close()
            raise ConnectionLost(f"{session.where} does not answer") from error
        except BaseException:
            await wire.close()
            raise
        self._session = session
        self._publisher = Publisher(session)
        self._inbox = RedisInbox(session)
        self._effects = RedisEffects(session)
        self._hub = LiveHub(session)

    async def _look_at_server(self, session: Session) -> None:
        try:
            hello = await session.commands.call(b"HELLO")
        except REPLY_ERRORS as error:
            failure = session.failure(error)
            if isinstance(failure, AuthenticationError):
                raise failure from error
            raise CapabilityError(
                f"{session.where} does not know HELLO: Catga needs Redis >= 7.0 or Valkey >= 8.0"
            ) from error
        words = {
            name.decode(): value.decode()
            for name, value in zip(hello[::2], hello[1::2], strict=True)
            if isinstance(value, bytes)
        }
        check_server(words, session.where)
        self._server = f"{words.get('server', 'redis')} {words.get('version', '')}".rstrip()
        while isinstance(await self._greeting(session), BusyLoadingError):
            await session.runtime.clock.sleep(_LOADING_PAUSE)  # until the connect deadline
        with contextlib.suppress(*REPLY_ERRORS):  # not permitted: the usual limit is assumed
            answer = await session.commands.call(b"CONFIG", b"GET", b"proto-max-bulk-len")
            if answer:
                session.bulk_limit = int(answer[1])

    @staticmethod
    async def _greeting(session: Session) -> Any:
        return (await session.commands.request(pack_command((b"PING",))))[0]

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
        try:
            info = parse_info(await session.commands.call(b"INFO"))
        except REPLY_ERRORS:
            info = None
        for risk in find_risks(info, self._settings.max_length):
            if (
                topology.qos is QualityOfService.EXACTLY_ONCE
                and risk.name not in topology.accept_risk
                and risk.name != "unknown"
            ):
                raise CapabilityError(
                    f"{session.where} cannot keep exactly once: {risk.detail} "
                    f'(or take the risk: accept_risk=["{risk.name}"])'
                )
            self._warn(risk.name, risk.detail)

    def _warn(self, name: str, detail: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            self._need().emit(EventKind.RISK, f"{name}: {detail}")

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        """Hand over or store each."""
        if self._publisher is None:
            lost = ConnectionLost(f"the transport of {self._dialer.where} is not open")
            return [Rejected(lost)] * len(batch)
        return await self._publisher.publish(batch)

    async def subscribe(self, source: Source) -> Subscription:
        """Open a live, reply or durable subscription."""
        session = self._need()
        subscription: Subscription
        try:
            if source.durable:
                subscription = await self._subscribe_durable(session, source)
            elif self._hub is None:
                raise ConnectionLost("closed")
            else:
                subscription = await self._hub.subscribe(source)
        except REPLY_ERRORS as error:
            raise session.failure(error) from error
        self._subscriptions.append(subscription)
        return subscription

    async def _subscribe_durable(self, session: Session, source: Source) -> Subscription:
        group = source.group
        if source.ephemeral:
            group = f"{session.runtime.instance}-{len(self._subscriptions)}"
            await create_groups(session, source_streams(source, group), b"$", ephemeral=True)
        async with self._opening:
            reader = self._readers.get(group)
            if reader is None:
                reader = GroupReader(session, group)
                await reader.open()
                self._readers[group] = reader
        subscription = LogSubscription(session, source, group, reader)
        await forget_members(session, subscription.streams)
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
        cursor = b"0"
        while True:
            cursor, keys = await session.commands.call(
                *(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", 1000)
            )
            if keys:
                await session.commands.call(b"UNLINK", *keys)
            if cursor == b"0":
                return

    async def health(self) -> Health:
        """Ask for a `PING` on the connection that publishes and settles."""
        if self._session is None:
            return Health(ok=False, detail="the transport is not open")
        try:
            await self._session.commands.call(b"PING", patience=_HEALTH_SECONDS)
        except (CatgaError, *REPLY_ERRORS) as error:
            return Health(ok=False, detail=str(self._session.failure(error)))
        return Health(ok=True)

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
        if self._hub is not None:
            await self._hub.close()
        await session.commands.close()

    def _need(self) -> Session:
        if self._session is None:
            raise ConnectionLost(f"the transport of {self._dialer.where} is not open")
        return self._session
