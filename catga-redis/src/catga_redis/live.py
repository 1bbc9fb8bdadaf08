"""QoS 0 and responses: one Pub/Sub connection for the whole bus."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from catga.errors import CatgaError, ConfigurationError
from catga.spi import (
    Delivery,
    Done,
    EventKind,
    Mailbox,
    Settle,
    SettleResult,
    Source,
    Subject,
    Subscription,
    parse_subject,
)
from catga_redis.claims import Claims
from catga_redis.errors import ELSEWHERE
from catga_redis.names import live_channels
from catga_redis.session import Session
from catga_redis.wire import Wire, pack_command

__all__ = ["LiveHub", "LiveSubscription"]

_FOREVER = float("inf")
_DONE = Done()
_PINGS_PER_CLAIM = 6
_TRIES = 20
_PAUSE = 0.1
_PLAIN = frozenset({b"message", b"smessage"})


class LiveHub:
    """Owns a Pub/Sub connection and knows who listens to which channel.

    One server has one for all. On a cluster each type has its own, at the owner of its slot: there
    nothing comes by way of another server, late or out of sight of who counts the listeners.
    """

    def __init__(self, session: Session, key: bytes = b"") -> None:
        self._session = session
        self._key = key
        self._word = b"S" if session.servers.sharded else b""
        self._ending: set[bytes] = set()
        self._wire: Wire | None = None
        self._opening = asyncio.Lock()
        self._channels: dict[bytes, list[LiveSubscription]] = {}
        self._patterns: dict[bytes, list[LiveSubscription]] = {}
        self._leaving: set[LiveSubscription] = set()
        self._pinging: asyncio.Task[None] | None = None
        self._greeted = False
        self.fresh_since = 0.0
        """Whatever arrives now was published after this moment of the monotonic clock."""

    @property
    def trouble(self) -> str:
        """Why it does not hear all that it should; empty when it does, or is not connected."""
        return "" if self._wire is None else self._wire.refused

    async def subscribe(self, source: Source) -> LiveSubscription:
        """Return a subscription that the server has confirmed."""
        subscription = LiveSubscription(self._session, source, self)
        async with self._opening:
            if self._wire is None:
                wire = self._session.wire("live", self._key, greet=self._greet, on_push=self._route)
                await wire.open()
                self._wire = wire
                await self._ping()
                self._pinging = self._session.runtime.spawn(self._ping_forever(), "redis: ping")
        table, names, kind = self._place(subscription)
        for name in names:
            table.setdefault(name, []).append(subscription)
        try:
            await self._confirm([(kind + b"SUBSCRIBE", name) for name in names])
        except CatgaError:
            await self.unsubscribe(subscription)  # or each new connection would ask for it again
            raise
        return subscription

    async def unsubscribe(self, subscription: LiveSubscription) -> None:
        """Listen no more; what the server sent before is with the subscription. Never raises."""
        table, names, kind = self._place(subscription)
        self._leaving.add(subscription)
        alone = [name for name in names if self._leaving.issuperset(table.get(name, ()))]
        try:
            if kind == b"S":
                self._ending.update(alone)
                if alone and self._wire is not None:
                    # Its answer comes as a push does, and the one to `PING` behind it.
                    words = ((b"SUNSUBSCRIBE", *alone), (b"PING",))
                    await self._wire.request(b"".join(map(pack_command, words)))
            else:
                await self._command([(kind + b"UNSUBSCRIBE", name) for name in alone])
            await self._ping()  # where others listen on, the answer comes behind what was sent
        except CatgaError:
            pass  # not connected: a new connection subscribes only to what is left
        finally:
            self._leaving.discard(subscription)
            self._ending.difference_update(alone)
            for name in names:
                listeners = table.get(name, [])
                if subscription in listeners:
                    listeners.remove(subscription)
                if not listeners:
                    table.pop(name, None)

    async def close(self) -> None:
        """Disconnect. Idempotent."""
        if self._pinging is not None:
            self._pinging.cancel()
        if self._wire is not None:
            await self._wire.close()

    def _place(
        self, subscription: LiveSubscription
    ) -> tuple[dict[bytes, list[LiveSubscription]], list[bytes], bytes]:
        if subscription.pattern:
            return self._patterns, [subscription.pattern], b"P"
        return self._channels, list(subscription.channels), self._word

    async def _command(self, commands: Sequence[tuple[bytes, bytes]]) -> None:
        """Carry out all, each for one name: so each has one reply, also when it is refused."""
        if self._wire is None or not commands:
            return
        packed = b"".join(map(pack_command, commands))
        for reply in await self._wire.request(packed, len(commands)):
            if isinstance(reply, Exception):
                raise self._session.failure(reply) from reply

    async def _confirm(self, commands: Sequence[tuple[bytes, bytes]]) -> None:
        """Subscribe; where the slot is just moving, again on the connection to its new owner."""
        for again in range(_TRIES):
            try:
                await self._command(commands)
            except CatgaError as error:
                if again + 1 == _TRIES or not isinstance(error.__cause__, ELSEWHERE):
                    raise
                await self._session.runtime.clock.sleep(_PAUSE)
                if self._wire is not None:
                    await self._wire.up.wait()
            else:
                return

    async def _greet(self) -> None:
        """Subscribe again on a new connection; what was sent meanwhile is missed."""
        commands = [(self._word + b"SUBSCRIBE", name) for name in self._channels]
        await self._command(commands + [(b"PSUBSCRIBE", name) for name in self._patterns])
        if self._greeted:
            await self._ping()
            self._session.emit(
                EventKind.GAP, "QoS 0 messages may have been missed while reconnecting"
            )
        self._greeted = True

    async def _ping(self) -> None:
        """Note a moment before which nothing that is still to come was published."""
        if self._wire is not None:
            sent = self._session.runtime.clock.monotonic()
            pong = self._wire.request(pack_command((b"PING", b"fresh")))
            # In the reader's own turn: messages behind the answer are measured against it.
            pong.add_done_callback(partial(self._pong, sent))
            await asyncio.wait([pong])

    def _pong(self, sent: float, pong: asyncio.Future[list[Any]]) -> None:
        if not pong.cancelled() and pong.exception() is None:
            self.fresh_since = sent

    async def _ping_forever(self) -> None:
        every = self._session.settings.claim_time.total_seconds() / _PINGS_PER_CLAIM
        while True:
            await self._session.runtime.clock.sleep(every)
            await self._ping()

    def _route(self, push: list[Any]) -> None:
        if push[0] in _PLAIN:
            for subscription in self._channels.get(push[1], ()):
                subscription.arrived(subscription.channels[push[1]], push[2])
        elif push[0] == b"sunsubscribe":
            if push[1] not in self._ending and self._wire is not None:
                self._wire.leave("its slot has moved")
        else:
            for subscription in self._patterns.get(push[1], ()):
                try:
                    subject = parse_subject(push[2].decode())
                except (ConfigurationError, UnicodeDecodeError):
                    continue  # a stranger's channel that fits our pattern
                subscription.arrived(subject, push[3])


class LiveSubscription(Subscription):
    """One live source, or the responses to this bus."""

    def __init__(self, session: Session, source: Source, hub: LiveHub) -> None:
        self.channels: dict[bytes, Subject] = {}
        if not source.reply:
            self.channels = live_channels(source, sharded=session.servers.sharded)
        self.pattern = b""
        if source.reply:
            instance = source.group or session.runtime.instance
            self.pattern = f"{source.namespace}.reply.{instance}.*".encode()
        self._session = session
        self._source = source
        self._hub = hub
        self._mailbox: Mailbox[Delivery] = Mailbox(session.runtime.clock)
        self._claims = Claims(session, source.group, hub, self._keep) if self._grouped else None
        self._dropped = 0

    @property
    def _grouped(self) -> bool:
        return bool(self._source.group) and not self._source.reply

    @property
    def lease(self) -> float:
        """There is nothing to keep."""
        return _FOREVER

    def arrived(self, subject: Subject, body: bytes) -> None:
        """Take in one message; in a group it is claimed first."""
        claims = self._claims
        waiting = len(self._mailbox) if claims is None else len(self._mailbox) + len(claims)
        if waiting >= self._session.settings.live_buffer:
            self._drop()
        elif claims is not None:
            claims.add(subject, body)
        else:
            self._keep(subject, body)

    def _keep(self, subject: Subject, body: bytes) -> None:
        self._mailbox.put(Delivery(subject, body, 1, "", _FOREVER))

    def _drop(self) -> None:
        if not self._dropped:
            asyncio.get_running_loop().call_soon(self._tell_dropped)
        self._dropped += 1

    def _tell_dropped(self) -> None:
        dropped, self._dropped = self._dropped, 0
        self._session.emit(
            EventKind.SLOW_CONSUMER,
            f"{dropped} QoS 0 messages of {self._source.type or 'responses'} were dropped: "
            "they come faster than they are taken",
        )

    async def receive(self, limit: int, max_wait: float) -> list[Delivery]:
        """Return what came in."""
        return await self._mailbox.receive(limit, max_wait)

    async def settle(self, batch: Sequence[Settle]) -> list[SettleResult]:
        """Nothing to settle."""
        return [_DONE] * len(batch)

    async def extend(self, batch: Sequence[Delivery]) -> list[SettleResult]:
        """Nothing to extend."""
        return [_DONE] * len(batch)

    async def drain(self) -> None:
        """Listen no more; what came in is still returned."""
        if self._mailbox.closed:
            return
        await self._hub.unsubscribe(self)
        if self._claims is not None:
            await self._claims.finish()
        self._mailbox.close()

    async def close(self) -> None:
        """Listen no more."""
        await self.drain()
