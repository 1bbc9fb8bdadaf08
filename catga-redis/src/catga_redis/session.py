"""What all parts of one open transport share."""

from __future__ import annotations

from typing import Any

import attrs

from catga.errors import CatgaError
from catga.spi import EventKind, Kind, Runtime, Subject, TransportEvent
from catga_redis.errors import translate
from catga_redis.servers import Servers
from catga_redis.settings import RedisSettings
from catga_redis.wire import Line, Wire

__all__ = ["Session"]


@attrs.define(eq=False)
class Session:
    """One bus on its servers."""

    servers: Servers
    """Where everything goes that does not wait at a server."""
    settings: RedisSettings
    runtime: Runtime
    bulk_limit: int = 512 * 1024 * 1024
    """The server's `proto-max-bulk-len`; so much it is by default (Redis 7.2, redis.conf)."""
    window_ms: int = 600_000
    """W."""
    for_ever: bool = False
    """Whether ids are kept for ever instead; those of dead letters, which are ours, never are."""
    completion_ms: int = 86_400_000
    """D."""
    max_length: dict[tuple[str, str], int] = attrs.field(factory=dict)
    """Per namespace and type, where one is declared."""

    @property
    def where(self) -> str:
        """The servers, as they may be shown."""
        return self.servers.where

    @property
    def member(self) -> bytes:
        """The name of this bus among the members of its groups."""
        return self.runtime.instance.encode()

    @property
    def max_body(self) -> int:
        """The most bytes of one body: the server's limit, or the smaller setting."""
        return min(self.bulk_limit, self.settings.max_payload_bytes or self.bulk_limit)

    def window_of(self, subject: Subject) -> int:
        """How long the ids of a stream are kept, in ms; 0: for ever."""
        return 0 if self.for_ever and subject.kind is not Kind.DEAD else self.window_ms

    def length_of(self, subject: Subject) -> int | bytes:
        """The `max_length` of a stream, or nothing; dead letters are never trimmed."""
        if subject.kind is Kind.DEAD or not self.max_length:
            return b""
        return self.max_length.get((subject.namespace, subject.type), b"")

    def line(self, key: bytes) -> Line:
        """Return what carries commands on this key."""
        return self.servers.line(key)

    def wire(self, role: str, key: bytes = b"", **options: Any) -> Wire:
        """Make a connection for one role, to whoever has this key; it is not open yet."""
        patience = self.settings.reply_timeout.total_seconds()
        return self.servers.wire(self.runtime, role, key, patience, **options)

    def failure(self, error: BaseException) -> CatgaError:
        """Translate what a command raised."""
        return translate(error, self.where)

    def emit(self, kind: EventKind, detail: str) -> None:
        """Tell the bus."""
        self.runtime.emit(TransportEvent(kind, detail))
