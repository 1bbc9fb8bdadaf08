"""A transport whose completion records are kept by another one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import attrs

from catga.ground.tasks import finish
from catga.model.capability import Capabilities, Capability
from catga.model.qos import QualityOfService
from catga.spi import (
    DeadLetterStore,
    Health,
    InboxStore,
    Mode,
    NodeStore,
    Outgoing,
    PublishResult,
    Receipt,
    Records,
    Runtime,
    Source,
    Subscription,
    Topology,
    Transport,
)

__all__ = ["RecordsElsewhere"]

_APART = "the completion records are kept elsewhere (inbox=…), and no step reaches both"
_JOINT = (Capability.COMMIT, Capability.ATOMIC, Capability.ATOMIC_PUBLISH, Capability.COMMANDS)
_ABSENT = dict.fromkeys(_JOINT, _APART)


class RecordsElsewhere(Transport):
    """Everything is the first one's, but the records are the second one's.

    So nothing can be written together with them: exactly once is windowed. While either cannot be
    reached nothing is begun and nothing is acknowledged.
    """

    def __init__(self, messages: Transport, records: Transport, shown: str) -> None:
        self._messages = messages
        self._records = records
        self.shown = shown
        """Where the records are, as it may be shown."""

    @property
    def capabilities(self) -> Capabilities:
        """Those of the transport, but for what needs the records in the same place."""
        own = self._messages.capabilities
        return Capabilities(own.present - _ABSENT.keys(), {**own.absent, **_ABSENT})

    @property
    def max_payload_bytes(self) -> int | None:
        """The smaller limit: a response is kept with its record."""
        limits = (self._messages.max_payload_bytes, self._records.max_payload_bytes)
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def server(self) -> str:
        """What the server of the messages calls itself."""
        return self._messages.server

    @property
    def inbox(self) -> InboxStore | None:
        """The other one's."""
        return self._records.inbox

    @property
    def dead_letters(self) -> DeadLetterStore | None:
        """Beside the messages."""
        return self._messages.dead_letters

    async def open(self, runtime: Runtime) -> None:
        """Open both, or neither."""
        await self._messages.open(runtime)
        try:
            await self._records.open(runtime)
            self._records.capabilities.require(Capability.EXACTLY_ONCE, f"inbox={self.shown}")
        except BaseException:
            await finish(self.close())
            raise

    async def prepare(self, topology: Topology, mode: Mode) -> None:
        """Prepare each for its part: the records first, which handlers begin with."""
        if topology.qos is QualityOfService.EXACTLY_ONCE:
            only = attrs.evolve(topology, publishes=(), sources=(), records=Records.ONLY)
            await self._records.prepare(only, mode)
        await self._messages.prepare(attrs.evolve(topology, records=Records.ELSEWHERE), mode)

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        """Pass it on."""
        return await self._messages.publish(batch)

    async def subscribe(self, source: Source) -> Subscription:
        """Pass it on."""
        return await self._messages.subscribe(source)

    async def wait_handled(self, stored: Sequence[tuple[Outgoing, Receipt]]) -> None:
        """Pass it on."""
        await self._messages.wait_handled(stored)

    def node_store(self, namespace: str, ttl: float, mode: Mode) -> NodeStore:
        """Pass it on."""
        return self._messages.node_store(namespace, ttl, mode)

    async def remove(self, namespace: str) -> None:
        """Remove it in both places."""
        await self._messages.remove(namespace)
        await self._records.remove(namespace)

    async def health(self) -> Health:
        """Ask both."""
        messages, records = await asyncio.gather(self._messages.health(), self._records.health())
        words = [messages.detail, f"records: {records.detail}" if records.detail else ""]
        return Health(messages.ok and records.ok, "; ".join(filter(None, words)))

    async def close(self) -> None:
        """Close both, the messages first."""
        try:
            await self._messages.close()
        finally:
            await self._records.close()
