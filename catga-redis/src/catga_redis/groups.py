"""Consumer groups at the server: made, verified, left, ended."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, isinf
from typing import Any

from redis.exceptions import OutOfMemoryError

from catga.errors import CatgaError, ConfigurationError
from catga.spi import Topology
from catga_redis.errors import REPLY_ERRORS
from catga_redis.names import (
    StreamKey,
    ephemeral_key,
    groups_key,
    index_key,
    meta_key,
    retention_key,
)
from catga_redis.scripts import FORGET
from catga_redis.session import Session
from catga_redis.wire import pack_command

__all__ = [
    "ABANDONED_MS",
    "NOBODY",
    "create_groups",
    "declare_types",
    "end_groups",
    "forget_members",
    "verify_groups",
]

NOBODY = b"nobody"
"""The member that holds what was given back until it is due."""


ABANDONED_MS = 3_600_000
"""A member that has not even tried to read for so long is dead."""


async def create_groups(
    session: Session, streams: Sequence[StreamKey], start: bytes = b"0", *, ephemeral: bool = False
) -> list[StreamKey]:
    """Make the groups that are missing, with their streams; return those that were missing.

    A group that exists keeps its position, also on a full server. An ephemeral one is noted, so
    that it can be ended by others when its only member is dead.
    """
    if not streams:
        return []
    if ephemeral:
        for each in streams:
            noted = ephemeral_key(each.subject.namespace, each.subject.type)
            session.line(noted).post(pack_command((b"ZADD", noted, b"NX", b"0", each.group)))
    packed = b"".join(
        pack_command((b"XGROUP", b"CREATE", each.key, each.group, start, b"MKSTREAM"))
        for each in streams
    )
    replies = await session.line(streams[0].key).request(packed, len(streams))
    made: list[StreamKey] = []
    for stream, reply in zip(streams, replies, strict=True):
        if not isinstance(reply, Exception):
            made.append(stream)
        elif not str(reply).startswith("BUSYGROUP") and not (
            isinstance(reply, OutOfMemoryError) and await _exists(session, stream)
        ):
            raise session.failure(reply) from reply
    return made


async def _exists(session: Session, stream: StreamKey) -> bool:
    try:
        await verify_groups(session, [stream])
    except ConfigurationError:
        return False
    return True


async def verify_groups(session: Session, streams: Sequence[StreamKey]) -> None:
    """Raise `ConfigurationError` naming the first group that is missing."""
    if not streams:
        return
    packed = b"".join(pack_command((b"XINFO", b"GROUPS", each.key)) for each in streams)
    replies = await session.line(streams[0].key).request(packed, len(streams))
    for stream, reply in zip(streams, replies, strict=True):
        gone = isinstance(reply, Exception)
        if gone and "no such key" not in str(reply):
            raise session.failure(reply) from reply
        if gone or not any(stream.group in group for group in reply):
            raise ConfigurationError(
                f"the group {stream.group.decode()} of {stream.key.decode()} does not exist: "
                "start with the permission to create it, or create it"
            )


async def forget_members(session: Session, streams: Sequence[StreamKey], *leaving: bytes) -> None:
    """Remove the members that leave and those that died long ago; never raises.

    Whoever has something pending stays: it would be destroyed together with the member.
    """
    for stream in streams:
        try:
            await FORGET.run(
                session.line(stream.key),
                [stream.key, stream.leases],
                [stream.group, ABANDONED_MS, *leaving],
            )
        except (CatgaError, *REPLY_ERRORS):
            return  # not connected, or the stream is gone: another start or stop does it


async def end_groups(session: Session, streams: Sequence[StreamKey]) -> None:
    """Destroy the groups and what belongs to them; never raises."""
    for stream in streams:
        session.line(stream.key).post(
            pack_command((b"XGROUP", b"DESTROY", stream.key, stream.group))
            + pack_command((b"DEL", stream.retry))
            + pack_command(
                (
                    b"ZREM",
                    ephemeral_key(stream.subject.namespace, stream.subject.type),
                    stream.group,
                )
            ),
            3,
        )


async def declare_types(session: Session, topology: Topology, max_length: int | None) -> None:
    """Keep the index of types and their groups, say how long messages are to stay, and agree with
    others on an explicit `max_length`.

    Raises `ConfigurationError` when another bus has given a type another one.
    """
    window = topology.dedupe_window  # what is known for ever is known without its entry
    seconds = topology.retention if isinf(window) else max(topology.retention, window)
    keep = b"inf" if isinf(seconds) else str(ceil(seconds * 1000)).encode()
    types = {(topology.namespace, type_) for type_ in topology.publishes}
    types |= {(each.namespace, each.type) for each in topology.sources if each.durable}
    for namespace, type_ in sorted(types):  # before anything is written: it may be refused
        key = (namespace, type_)
        if (stored := await _stored_length(session, key, max_length)) is not None:
            session.max_length[key] = stored
    for namespace, type_ in sorted(types):
        index, known = index_key(namespace), groups_key(namespace, type_)
        groups = _declared_groups(topology, namespace, type_)
        facts: list[tuple[tuple[Any, ...], Any, tuple[Any, ...]]] = [
            ((b"SISMEMBER", *member), 1, (b"SADD", *member))
            for member in ((index, type_), *((known, group) for group in groups))
        ]
        if groups or type_ in topology.publishes:
            vote = (retention_key(namespace, type_), session.runtime.service)
            facts.append(((b"HGET", *vote), keep, (b"HSET", *vote, keep)))
        await _note(session, facts)


async def _note(
    session: Session, facts: Sequence[tuple[tuple[Any, ...], Any, tuple[Any, ...]]]
) -> None:
    """Look at each, and write those that do not stand there: what would change nothing is refused
    by a full server too."""
    found = await session.servers.ask([look for look, _, _ in facts])
    missing = [
        write for (_, wanted, write), reply in zip(facts, found, strict=True) if reply != wanted
    ]
    for reply in await session.servers.ask(missing):
        if isinstance(reply, Exception):
            raise reply


async def _stored_length(
    session: Session, key: tuple[str, str], max_length: int | None
) -> int | None:
    """Return the `max_length` of a type, ours when nobody has set one; raises as above."""
    meta, type_ = meta_key(*key), key[1]
    commands: list[tuple[Any, ...]] = [(b"HGET", meta, b"max_length")]
    if max_length is not None:
        commands.insert(0, (b"HSETNX", meta, b"max_length", max_length))
    replies = await session.servers.ask(commands)
    for reply in replies:
        # A full server refuses also what would not change what stands there.
        if isinstance(reply, Exception) and (reply is replies[-1] or replies[-1] is None):
            raise reply
    stored = None if replies[-1] is None else int(replies[-1])
    if max_length is not None and stored != max_length:
        raise ConfigurationError(
            f"max_length={max_length} disagrees with {stored}, which another bus has set "
            f"for {type_}: use the same, or remove it with HDEL {meta.decode()} max_length"
        )
    return stored


def _declared_groups(topology: Topology, namespace: str, type_: str) -> list[bytes]:
    lasting = (each for each in topology.sources if each.durable and not each.ephemeral)
    wanted = (namespace, type_)
    return sorted(
        {each.group.encode() for each in lasting if (each.namespace, each.type) == wanted}
    )
