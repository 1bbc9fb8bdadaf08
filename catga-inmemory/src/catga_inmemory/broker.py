"""The broker in memory: what several buses of one process share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from catga.spi import Clock, Delivery, Kind, Mailbox, Outgoing, Receipt, Source
from catga_inmemory.discovery import NodeTable
from catga_inmemory.effects import MemoryEffects
from catga_inmemory.inbox import RecordTable
from catga_inmemory.log import Stream

_NEVER = float("inf")

__all__ = ["LiveListener", "MemoryBroker", "acquire", "release"]


class LiveListener:
    """One live subscription: a bounded mailbox, and who it is for."""

    def __init__(self, clock: Clock, group: str, limit: int) -> None:
        self.group = group
        self.limit = limit
        self.mailbox: Mailbox[Delivery] = Mailbox(clock)
        self.dropped = 0

    def offer(self, batch: Sequence[Outgoing]) -> int:
        """Put messages in as far as there is room; return how many were dropped."""
        room = max(0, self.limit - len(self.mailbox))
        taken = batch if len(batch) <= room else batch[:room]
        self.mailbox.extend(
            [Delivery(outgoing.subject, outgoing.body, 1, "", _NEVER) for outgoing in taken]
        )
        dropped = len(batch) - len(taken)
        self.dropped += dropped
        return dropped


class MemoryBroker:
    """Streams by (namespace, type), live listeners, reply mailboxes, completion records."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.users = 0
        self._streams: dict[tuple[str, str], Stream] = {}
        self._live: dict[tuple[str, str], list[LiveListener]] = defaultdict(list)
        self._turn = 0
        self.replies: dict[str, LiveListener] = {}
        self.records = RecordTable()
        self.effects = MemoryEffects()
        self._nodes: dict[str, NodeTable] = {}

    def stream(self, namespace: str, type_: str) -> Stream:
        """Return what is stored for this type, empty when nothing is yet."""
        key = (namespace, type_)
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = Stream(self.clock)
        return stream

    def streams(self, namespace: str) -> list[Stream]:
        """Return what is stored under a namespace."""
        return [stream for (name, _), stream in self._streams.items() if name == namespace]

    def nodes(self, namespace: str) -> NodeTable:
        """Return the nodes of a namespace."""
        return self._nodes.setdefault(namespace, NodeTable(self.clock))

    def close(self) -> None:
        """Forget every timer."""
        for stream in self._streams.values():
            stream.close()

    def remove(self, namespace: str) -> None:
        """Forget everything that is stored under a namespace."""
        for key in [key for key in self._streams if key[0] == namespace]:
            self._streams.pop(key).close()
        self.records.remove(namespace)
        self.effects.remove(namespace)
        self.nodes(namespace).clear()

    def listen(self, source: Source, listener: LiveListener) -> None:
        """Add a live listener."""
        self._live[source.namespace, source.type].append(listener)

    def unlisten(self, source: Source, listener: LiveListener) -> None:
        """Remove it; harmless when it is gone."""
        listeners = self._live.get((source.namespace, source.type), [])
        if listener in listeners:
            listeners.remove(listener)

    def store(self, batch: Sequence[Outgoing]) -> list[Receipt]:
        """Store messages to one subject."""
        subject = batch[0].subject
        return self.stream(subject.namespace, subject.type).append(batch)

    def send_live(self, batch: Sequence[Outgoing]) -> tuple[int, int]:
        """Hand QoS 0 messages to one subject to whoever listens now.

        Returns how many were taken and dropped, counted for each listener.
        """
        dropped = wanted = 0
        for listener, share in self._shares(batch):
            wanted += len(share)
            dropped += listener.offer(share)
        return wanted - dropped, dropped

    def _shares(
        self, batch: Sequence[Outgoing]
    ) -> Iterator[tuple[LiveListener, Sequence[Outgoing]]]:
        """Yield what each listener is to get: each message goes to one member of a group."""
        subject = batch[0].subject
        if subject.kind is Kind.REPLY:
            reply = self.replies.get(subject.group)
            if reply is not None:
                yield reply, batch
            return
        groups: dict[str, list[LiveListener]] = {}
        for listener in self._live.get((subject.namespace, subject.type), ()):
            if listener.group:
                if not subject.group or subject.group == listener.group:
                    groups.setdefault(listener.group, []).append(listener)
            elif not subject.group:
                yield listener, batch
        turn = self._turn
        self._turn += len(batch)
        for members in groups.values():
            count = len(members)
            for place in range(min(count, len(batch))):
                yield members[(turn + place) % count], batch[place::count]


_shared: dict[str, MemoryBroker] = {}


def acquire(name: str, clock: Clock) -> MemoryBroker:
    """Return the broker of `inmemory://name`, made when nobody uses one; `release` it later.

    Without a name it is a new one, for this caller alone.
    """
    broker = _shared.get(name) if name else None
    if broker is None:
        broker = MemoryBroker(clock)
        if name:
            _shared[name] = broker
    broker.users += 1
    return broker


def release(name: str, broker: MemoryBroker) -> None:
    """Let go of a broker; with its last user, everything in it is gone."""
    broker.users -= 1
    if broker.users == 0:
        broker.close()
        if _shared.get(name) is broker:
            del _shared[name]
