"""Settlements at the server: one command or script per stream for up to 256 deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from catga.errors import CatgaError, PayloadTooLarge, TransportError
from catga.spi import (
    Commit,
    Done,
    EventKind,
    Lost,
    Outgoing,
    SettleResult,
    Subject,
    Unknown,
)
from catga_redis.committing import commit_effects
from catga_redis.deadletters import make_findable
from catga_redis.errors import REPLY_ERRORS
from catga_redis.inbox import record_value
from catga_redis.names import StreamKey, done_key, seen_prefix, stream_key
from catga_redis.scripts import BATCH, COMMIT, EXTEND, PARK, RELEASE, Script, parts
from catga_redis.servers import together
from catga_redis.session import Session
from catga_redis.wire import Line, pack_command

__all__ = ["DONE", "LOST", "UNSEEN", "Settler", "Token", "tell_gone"]

DONE = Done()
LOST = Lost()
UNSEEN = -1
"""The delay of what is given back although nobody saw it: the attempt does not count."""

Token: TypeAlias = tuple[StreamKey, bytes, int]
"""The stream, the entry's id and its delivery count: together they name one delivery."""


def tell_gone(session: Session, stream: StreamKey, count: int) -> None:
    """Report entries that were trimmed or deleted while they were pending."""
    if count:
        session.emit(
            EventKind.TROUBLE,
            f"{count} entries of {stream.key.decode()} were trimmed before the group "
            f"{stream.group.decode()} had settled them",
        )


class Settler:
    """Every method returns one result per token, in order, and never raises."""

    def __init__(self, session: Session, line_of: Callable[[StreamKey], Line]) -> None:
        self._session = session
        self._line_of = line_of

    async def acknowledge(self, tokens: Sequence[Token], *, confirm: bool) -> list[SettleResult]:
        """Acknowledge without a fence: the caller knows that its lease has not ended.

        Unconfirmed, a lost acknowledgement only means that the message comes again.
        """
        results: list[SettleResult] = [DONE] * len(tokens)
        for stream, part in _by_stream(tokens):
            ids = (tokens[index][1] for index in part)
            packed = pack_command((b"XACK", stream.key, stream.group, *ids))
            line = self._line_of(stream)
            if not confirm and line.post(packed):
                continue
            try:
                reply = (await line.request(packed))[0]
            except CatgaError as error:
                reply = error
            if isinstance(reply, Exception):
                for index in part:
                    results[index] = Unknown(self._session.failure(reply))
        return results

    async def release(self, work: Sequence[tuple[Token, int]]) -> list[SettleResult]:
        """Give back each after its delay in milliseconds, or as `UNSEEN`."""
        results: list[SettleResult] = [LOST] * len(work)

        async def carry(stream: StreamKey, part: Sequence[int]) -> None:
            values: list[Any] = []
            for index in part:
                (_, id_, count), delay = work[index]
                values += [id_, count, delay]
            outcomes = await self._run(RELEASE, [stream.key, stream.retry], stream, values)
            if isinstance(outcomes, list):
                tell_gone(self._session, stream, outcomes.count(2))
            _place(outcomes, part, results)

        await together([carry(*part) for part in _by_stream([token for token, _ in work])])
        return results

    async def extend(self, tokens: Sequence[Token]) -> list[SettleResult]:
        """Start the lease of each anew."""
        results: list[SettleResult] = [LOST] * len(tokens)

        async def carry(stream: StreamKey, part: Sequence[int]) -> None:
            values: list[Any] = []
            for index in part:
                values += tokens[index][1:]
            _place(await self._run(EXTEND, [stream.key], stream, values), part, results)

        await together([carry(*part) for part in _by_stream(tokens)])
        return results

    async def commit(self, work: Sequence[tuple[Token, Commit]]) -> list[SettleResult]:
        """Record and acknowledge each: those without effects together, any other by itself."""
        results: list[SettleResult] = [LOST] * len(work)
        single = [index for index, (_, commit) in enumerate(work) if commit.effects is not None]
        if single:
            plain = [index for index in range(len(work)) if index not in set(single)]
            alone = [self._commit_effects(*work[index]) for index in single]
            outcomes, rest = await asyncio.gather(
                asyncio.gather(*alone), self.commit([work[index] for index in plain])
            )
            for index, outcome in zip((*single, *plain), (*outcomes, *rest), strict=True):
                results[index] = outcome
            return results

        async def carry(stream: StreamKey, part: Sequence[int]) -> None:
            keys, values = [stream.key], list[Any]([self._session.completion_ms])
            for index in part:
                (_, id_, count), commit = work[index]
                keys.append(done_key(commit.record.key))
                values += (id_, count, record_value(commit.record))
            _place(await self._run(COMMIT, keys, stream, values), part, results)

        await together([carry(*part) for part in _by_stream([token for token, _ in work])])
        return results

    async def park(self, work: Sequence[tuple[Token, Outgoing]]) -> list[SettleResult]:
        """Store the dead letter of each and acknowledge it; what is too large does neither."""
        results: list[SettleResult] = [LOST] * len(work)
        limit = self._session.max_body
        fitting: dict[tuple[StreamKey, Subject], list[int]] = {}
        for index, (token, letter) in enumerate(work):
            if len(letter.body) > limit:
                results[index] = Unknown(PayloadTooLarge(len(letter.body), limit))
            else:
                fitting.setdefault((token[0], letter.subject), []).append(index)
        for (stream, letters), indexes in fitting.items():
            try:
                await make_findable(self._session, letters)
            except CatgaError as error:
                _place(Unknown(error), indexes, results)
                continue
            seen = seen_prefix(letters)
            for part in parts(indexes, lambda index: len(work[index][1].body)):
                keys = [stream.key, stream_key(letters)]
                values: list[Any] = [self._session.window_ms]
                for index in part:
                    token, letter = work[index]
                    keys.append(seen + letter.message_id.encode())
                    values += (*token[1:], letter.body)
                _place(await self._run(PARK, keys, stream, values), part, results)
        return results

    async def _commit_effects(self, token: Token, commit: Commit) -> SettleResult:
        try:
            return await commit_effects(self._session, *token, commit)
        except (CatgaError, *REPLY_ERRORS) as error:
            return Unknown(self._session.failure(error))

    async def _run(
        self, script: Script, keys: Sequence[bytes], stream: StreamKey, values: Sequence[Any]
    ) -> list[int | bytes] | Unknown:
        whole = [stream.group, self._session.member, *values]
        try:
            outcomes: list[int | bytes] = await script.run(self._line_of(stream), keys, whole)
        except (CatgaError, *REPLY_ERRORS) as error:
            return Unknown(self._session.failure(error))
        return outcomes


def _by_stream(tokens: Sequence[Token]) -> Iterator[tuple[StreamKey, Sequence[int]]]:
    """Yield the positions of the tokens of each stream, at most 256 at a time."""
    streams = {token[0] for token in tokens}
    for stream in streams:
        indexes: Sequence[int] = range(len(tokens))
        if len(streams) > 1:
            indexes = [index for index, token in enumerate(tokens) if token[0] is stream]
        for at in range(0, len(indexes), BATCH):
            yield stream, indexes[at : at + BATCH]


def _place(
    outcomes: list[int | bytes] | Unknown, part: Sequence[int], results: list[SettleResult]
) -> None:
    if isinstance(outcomes, Unknown):
        for index in part:
            results[index] = outcomes
        return
    for index, outcome in zip(part, outcomes, strict=True):
        if isinstance(outcome, bytes):  # '!', and why the server refused it
            words = outcome[1:].decode(errors="backslashreplace")
            results[index] = Unknown(TransportError(words))
        else:
            results[index] = DONE if outcome else LOST
