"""The dead letters on the server: one stream per group and type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from catga.errors import CatgaError
from catga.spi import (
    DeadLetterStore,
    Done,
    Kind,
    Lost,
    SettleResult,
    StoredLetter,
    Subject,
    Unknown,
)
from catga_redis.entries import read_fields
from catga_redis.errors import REPLY_ERRORS
from catga_redis.names import groups_key, index_key, stream_key
from catga_redis.session import Session
from catga_redis.wire import pack_command

__all__ = ["RedisDeadLetters", "make_findable"]

_PIPELINE = 256
"""At most so many commands in one round trip."""


async def make_findable(session: Session, letters: Subject) -> None:
    """Note the group in the index before its letters are stored.

    On one server the same connection keeps the order; between the servers of a cluster only the
    answer does. Raises `CatgaError`: then the letters must not be stored, for nobody finds them.
    """
    types, groups = index_key(letters.namespace), groups_key(letters.namespace, letters.type)
    commands = [(b"SADD", types, letters.type), (b"SADD", groups, letters.group)]
    if not session.servers.sharded:
        session.line(types).post(b"".join(map(pack_command, commands)), 2)
        return
    for reply in await session.servers.ask(commands):
        if isinstance(reply, Exception):
            raise session.failure(reply) from reply


class RedisDeadLetters(DeadLetterStore):
    """Found through the index of types and the groups of each: no keys are searched."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def subjects(self, namespace: str) -> dict[Subject, int]:
        """Three steps: the types, their groups, how many letters each holds."""
        (types,) = await self._ask([(b"SMEMBERS", index_key(namespace))])
        names = sorted(word.decode() for word in types)
        groups = await self._ask([(b"SMEMBERS", groups_key(namespace, type_)) for type_ in names])
        subjects = [
            Subject(namespace, Kind.DEAD, type_, group.decode())
            for type_, members in zip(names, groups, strict=True)
            for group in sorted(members)
        ]
        counts = await self._ask([(b"XLEN", stream_key(subject)) for subject in subjects])
        return {subject: n for subject, n in zip(subjects, counts, strict=True) if n}

    async def read(self, subject: Subject, after: str = "", limit: int = 100) -> list[StoredLetter]:
        """By `XRANGE`; the sequence is the entry's id."""
        start = f"({after}" if after else "-"
        command = (b"XRANGE", stream_key(subject), start, b"+", b"COUNT", limit)
        (entries,) = await self._ask([command])
        return [
            StoredLetter(subject, id_.decode(), read_fields(fields).body) for id_, fields in entries
        ]

    async def remove(self, letters: Sequence[StoredLetter]) -> list[SettleResult]:
        """By `XDEL`, each for itself."""
        results: list[SettleResult] = []
        for part in _parts(letters):
            commands = [(b"XDEL", stream_key(each.subject), each.sequence) for each in part]
            try:
                replies = await self._session.servers.ask(commands)
            except CatgaError as error:
                replies = [error] * len(part)
            for reply in replies:
                if isinstance(reply, Exception):
                    results.append(Unknown(self._session.failure(reply)))
                else:
                    results.append(Done() if reply else Lost())
        return results

    async def _ask(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Return the reply of each; raises `CatgaError` for the first that is an error."""
        replies: list[Any] = []
        for part in _parts(commands):
            replies += await self._session.servers.ask(part)
        for reply in replies:
            if isinstance(reply, REPLY_ERRORS):
                raise self._session.failure(reply) from reply
        return replies


def _parts(items: Sequence[Any]) -> Iterator[list[Any]]:
    rest = iter(items)
    while part := list(islice(rest, _PIPELINE)):
        yield part
