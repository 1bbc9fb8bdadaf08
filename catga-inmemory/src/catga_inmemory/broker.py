"""The broker in memory: what several buses of one process share."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

from catga.spi import Clock, Delivery, Kind, Mailbox, Outgoing, Record, Source
from catga_inmemory.discovery import NodeTable
from catga_inmemory.effects import MemoryEffects
from catga_inmemory.log import Stream

__all__ = ["LiveListener", "MemoryBroker", "acquire", "release"]


class LiveListener:
    """One live subscription: a bounded mailbox, and who it is for."""

    def __init__(self, clock: Clock, group: str, limit: int) -> None:
        self.group = group
        self.limit = limit
        self.mailbox: Mailbox[Delivery] = Mailbox(clock)
        self.dropped = 0

    def offer(self, outgoing: Outgoing) -> bool:
        """Put the message in, or count it as dropped when the listener is too slow."""
        if len(self.mailbox) >= self.limit:
            self.dropped += 1
            return False
        self.mailbox.put(Delivery(outgoing.subject, outgoing.body, 1, "", float("inf")))
        return True


class MemoryBroker:
    """Streams by (namespace, type), live listeners, reply mailboxes, completion records."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.users = 0
        self._streams: dict[tuple[str, str], Stream] = {}
        self._live: dict[tuple[str, str], list[LiveListener]] = defaultdict(list)
        self._turn = itertools.count()
        self.replies: dict[str, LiveListener] = {}
        self.completions: dict[tuple[str, str, str, str], tuple[float, Record]] = {}
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
        for record in [record for record in self.completions if record[0] == namespace]:
            del self.completions[record]
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

    def send_live(self, outgoing: Outgoing) -> tuple[int, int]:
        """Hand a QoS 0 message to whoever listens now; return how many took and dropped it."""
        taken = dropped = 0
        for listener in self._targets(outgoing):
            if listener.offer(outgoing):
                taken += 1
            else:
                dropped += 1
        return taken, dropped

    def _targets(self, outgoing: Outgoing) -> Iterator[LiveListener]:
        subject = outgoing.subject
        if subject.kind is Kind.REPLY:
            reply = self.replies.get(subject.group)
            if reply is not None:
                yield reply
            return
        groups: dict[str, list[LiveListener]] = {}
        for listener in self._live.get((subject.namespace, subject.type), ()):
            if listener.group:
                if not subject.group or subject.group == listener.group:
                    groups.setdefault(listener.group, []).append(listener)
            elif not subject.group:
                yield listener
        for members in groups.values():
            yield members[next(self._turn) % len(members)]


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
