"""Clients of the brokers that know nothing of Catga: they send what no bus would, and look."""

from __future__ import annotations

import asyncio
import base64
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.errors import NotFoundError
from redis.asyncio import Redis
from redis.exceptions import ResponseError

import nats
from catga.ground.clock import SystemClock
from catga.spi import Kind, Outgoing, QualityOfService, Subject
from catga_inmemory.broker import MemoryBroker, acquire, release

__all__ = ["Heard", "MemoryOutside", "NatsOutside", "Outside", "RedisOutside"]

Heard = list[tuple[str, bytes]]
"""Subject and body of what was published."""


class Outside(ABC):
    """What the laws ask of such a client."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    @classmethod
    @abstractmethod
    async def connect(cls, url: str, namespace: str) -> Self: ...

    @abstractmethod
    async def close(self) -> None: ...

    def subject(self, kind: Kind, type_: str, group: str = "") -> Subject:
        return Subject(self.namespace, kind, type_, group)

    @abstractmethod
    async def store(self, subject: Subject, body: bytes, **headers: str) -> None:
        """Put a body where stored messages are, with headers or fields beside it."""

    @abstractmethod
    async def send(self, subject: Subject, body: bytes) -> None:
        """Publish a body to whoever listens now."""

    @abstractmethod
    async def stored(self, subject: Subject) -> list[bytes]: ...

    @abstractmethod
    async def everything(self) -> list[bytes]:
        """Every body that is stored in the namespace."""

    @abstractmethod
    def listening(self) -> Any:
        """An async context manager: what is published in the namespace meanwhile, as `Heard`."""

    @abstractmethod
    async def groups(self, type_: str) -> set[str]:
        """The groups that the broker knows for a type."""

    @abstractmethod
    async def unsettled(self, type_: str, group: str) -> int:
        """How many stored messages the group still has to settle."""

    @abstractmethod
    async def is_heard(self, type_: str) -> bool:
        """Whether anybody listens to what is published at QoS 0 of a type."""

    async def dead(self, type_: str, group: str = "tests") -> list[dict[str, Any]]:
        """The dead letters of a group, each with the original's bytes as `body`."""
        bodies = await self.stored(self.subject(Kind.DEAD, type_, group))
        letters: list[dict[str, Any]] = [json.loads(body)["data"] for body in bodies]
        for letter in letters:
            letter["body"] = base64.b64decode(letter["body_base64"])
        return letters


class MemoryOutside(Outside):
    """The broker itself: in memory there is nothing further outside."""

    def __init__(self, name: str, namespace: str) -> None:
        super().__init__(namespace)
        self._name = name
        self._broker: MemoryBroker = acquire(name, SystemClock())
        self._sent = 0

    @classmethod
    async def connect(cls, url: str, namespace: str) -> Self:
        return cls(url.removeprefix("inmemory://"), namespace)

    async def close(self) -> None:
        release(self._name, self._broker)

    def _outgoing(self, subject: Subject, body: bytes) -> Outgoing:
        self._sent += 1
        return Outgoing(subject, body, f"outside-{self._sent}", QualityOfService.AT_LEAST_ONCE)

    async def store(self, subject: Subject, body: bytes, **headers: str) -> None:
        del headers  # there are none in memory
        stream = self._broker.stream(subject.namespace, subject.type)
        stream.append([self._outgoing(subject, body)])

    async def send(self, subject: Subject, body: bytes) -> None:
        self._broker.send_live([self._outgoing(subject, body)])

    async def stored(self, subject: Subject) -> list[bytes]:
        stream = self._broker.stream(subject.namespace, subject.type)
        return [entry.body for entry in stream.entries.values() if entry.subject == subject]

    async def everything(self) -> list[bytes]:
        return [
            entry.body
            for stream in self._broker._streams.values()
            for entry in stream.entries.values()
        ]

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Heard]:
        heard: Heard = []
        send = self._broker.send_live

        def spy(batch: Sequence[Outgoing]) -> tuple[int, int]:
            heard.extend((outgoing.subject.text, outgoing.body) for outgoing in batch)
            return send(batch)

        self._broker.send_live = spy  # type: ignore[method-assign]  # a tap on the wire
        try:
            yield heard
        finally:
            self._broker.send_live = send  # type: ignore[method-assign]

    async def groups(self, type_: str) -> set[str]:
        return set(self._broker.stream(self.namespace, type_).groups)

    async def unsettled(self, type_: str, group: str) -> int:
        known = self._broker.stream(self.namespace, type_).groups.get(group)
        return 0 if known is None else len(known.unfinished())

    async def is_heard(self, type_: str) -> bool:
        return bool(self._broker._live[self.namespace, type_])


class NatsOutside(Outside):
    """nats-py as it comes."""

    def __init__(self, client: Client, namespace: str) -> None:
        super().__init__(namespace)
        self._client = client
        self._js = client.jetstream()

    @classmethod
    async def connect(cls, url: str, namespace: str) -> Self:
        return cls(await nats.connect(url), namespace)

    async def close(self) -> None:
        await self._client.close()

    async def store(self, subject: Subject, body: bytes, **headers: str) -> None:
        await self._js.publish(subject.text, body, headers=headers or None)

    async def send(self, subject: Subject, body: bytes) -> None:
        await self._client.publish(subject.text, body)
        await self._client.flush()

    async def stored(self, subject: Subject) -> list[bytes]:
        name = "dead" if subject.kind is Kind.DEAD else "log"
        return [body for text, body in await self._stream(name) if text == subject.text]

    async def everything(self) -> list[bytes]:
        return [body for name in ("log", "dead") for _, body in await self._stream(name)]

    async def _stream(self, name: str) -> list[tuple[str, bytes]]:
        stream = f"{self.namespace}-{name}"
        try:
            state = (await self._js.stream_info(stream)).state
        except NotFoundError:
            return []
        places = range(state.first_seq, state.last_seq + 1) if state.messages else ()
        found = await asyncio.gather(*(self._js.get_msg(stream, place) for place in places))
        return [(message.subject or "", message.data or b"") for message in found]

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Heard]:
        heard: Heard = []

        async def hear(message: Msg) -> None:
            heard.append((message.subject, message.data))

        subscription = await self._client.subscribe(f"{self.namespace}.>", cb=hear)
        # nats-py writes a PING past the commands that wait, so that `flush` proves nothing of them.
        await self._client._flush_pending(force_flush=True)
        await self._client.flush()
        try:
            yield heard
        finally:
            await subscription.unsubscribe()

    async def groups(self, type_: str) -> set[str]:
        try:
            consumers = await self._js.consumers_info(f"{self.namespace}-log")
        except NotFoundError:
            return set()
        names = [consumer.name.partition("=") for consumer in consumers]
        return {group for group, _, type_name in names if type_name == type_}

    async def unsettled(self, type_: str, group: str) -> int:
        info = await self._js.consumer_info(f"{self.namespace}-log", f"{group}={type_}")
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def is_heard(self, type_: str) -> bool:
        try:
            await self._client.request(f"{self.namespace}.live.{type_}", timeout=0.5)
        except NoRespondersError:
            return False
        except NatsTimeout:
            pass
        return True


class RedisOutside(Outside):
    """redis-py as it comes."""

    def __init__(self, client: Redis, namespace: str) -> None:
        super().__init__(namespace)
        self._client = client

    @classmethod
    async def connect(cls, url: str, namespace: str) -> Self:
        return cls(Redis.from_url(url), namespace)

    async def close(self) -> None:
        await self._client.aclose()

    def _key(self, subject: Subject) -> str:
        tag = f"{{{self.namespace}:{subject.type}}}"
        kind = subject.kind.value
        return f"{tag}:log:0" if subject.kind is Kind.LOG else f"{tag}:{kind}:{subject.group}"

    async def store(self, subject: Subject, body: bytes, **headers: str) -> None:
        await self.add(subject, {b"b": body, **{k.encode(): v for k, v in headers.items()}})

    async def add(self, subject: Subject, fields: Mapping[bytes, bytes | str]) -> None:
        """Add an entry of any fields."""
        await self._client.xadd(self._key(subject), dict(fields))  # type: ignore[arg-type]  # its dict is invariant

    async def send(self, subject: Subject, body: bytes) -> None:
        await self._client.publish(subject.text, body)

    async def stored(self, subject: Subject) -> list[bytes]:
        return await self._bodies(self._key(subject))

    async def _bodies(self, key: str | bytes) -> list[bytes]:
        entries: Any = await self._client.xrange(key)  # its own type allows for decoded answers
        return [fields.get(b"b", b"") for _, fields in entries]

    async def everything(self) -> list[bytes]:
        pattern = f"{{{self.namespace}:*}}:*"
        keys = [key async for key in self._client.scan_iter(match=pattern, _type="stream")]
        return [body for key in keys for body in await self._bodies(key)]

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Heard]:
        heard: Heard = []
        async with self._client.pubsub() as pubsub:
            await pubsub.psubscribe(f"{self.namespace}.*")
            assert (await pubsub.get_message(timeout=5))["type"] == "psubscribe"

            async def hear() -> None:
                async for message in pubsub.listen():
                    heard.append((message["channel"].decode(), message["data"]))

            hearing = asyncio.create_task(hear())
            try:
                yield heard
            finally:
                hearing.cancel()
                await asyncio.wait([hearing])

    async def groups(self, type_: str) -> set[str]:
        pattern = f"{{{self.namespace}:{type_}}}:*"
        keys = [key async for key in self._client.scan_iter(match=pattern, _type="stream")]
        return {group["name"].decode() for key in keys for group in await self._groups(key)}

    async def _groups(self, key: str | bytes) -> list[dict[str, Any]]:
        try:
            return await self._client.xinfo_groups(key)
        except ResponseError:
            return []

    async def unsettled(self, type_: str, group: str) -> int:
        subjects = [
            self.subject(Kind.LOG, type_),
            self.subject(Kind.TO, type_, group),
            self.subject(Kind.REDO, type_, group),
        ]
        found = [known for each in subjects for known in await self._groups(self._key(each))]
        return sum(
            known["pending"] + (known["lag"] or 0)
            for known in found
            if known["name"] == group.encode()
        )

    async def is_heard(self, type_: str) -> bool:
        return bool(await self._client.pubsub_channels(f"{self.namespace}.live.{type_}"))
