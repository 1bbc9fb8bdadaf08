"""Requests and their answers: one reply subscription, counted tokens, one table.

Batches wait with one future and one timer, whatever their size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import Enum
from itertools import count, repeat
from typing import TYPE_CHECKING, TypeAlias

from catga.spi import Clock
from catga_nats.parser import Message

if TYPE_CHECKING:
    from catga_nats.client import GuardedClient

__all__ = ["Answer", "Ask", "Batch", "Missing", "Mux", "Series"]


class Missing(Enum):
    """Why there is no answer."""

    TIMEOUT = "timeout"
    DISCONNECTED = "disconnected"
    UNSENT = "unsent"
    """Never left: the connection was down before."""
    DENIED = "denied"


Answer: TypeAlias = Message | Missing
Ask: TypeAlias = tuple[str, bytes]
"""Subject and payload."""
_TOGETHER = 256


class Batch:
    """Answers that are awaited together."""

    __slots__ = ("_keys", "_left", "_mux", "_waiter", "answers")

    def __init__(self, mux: Mux) -> None:
        self._mux = mux
        self._keys: list[str] = []
        self._left = 0
        self._waiter: asyncio.Future[None] | None = None
        self.answers: list[Answer] = []

    def expect(self, subject: str) -> str:
        """Add an answer to wait for; return the reply subject of the request to `subject`."""
        (key,) = self.expect_all([subject])
        return key

    def expect_all(self, subjects: Sequence[str]) -> list[str]:
        """Add an answer to each; return the reply subjects of the requests to these."""
        keys = self._mux.enter_all(self, len(self.answers), subjects)
        self._keys += keys
        self.answers += [Missing.TIMEOUT] * len(keys)
        self._left += len(keys)
        return keys

    def put(self, index: int, answer: Answer) -> None:
        """Take in one answer; the last one wakes the waiter."""
        self.answers[index] = answer
        self._left -= 1
        if self._left == 0 and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def send(self, asks: Sequence[Ask], headers: bytes = b"") -> None:
        """Expect an answer to each, and send them all, so many at a time that others have room."""
        client = self._mux.client
        for start in range(0, len(asks), _TOGETHER):
            part = asks[start : start + _TOGETHER]
            keys = self.expect_all([where for where, _ in part])
            saying = [(where, what, key) for (where, what), key in zip(part, keys, strict=True)]
            if not await client.send_all(saying, headers):  # known at once: nothing came between
                self._mux.forget(self._keys[start:])
                for index in range(start, len(self.answers)):
                    self.put(index, Missing.UNSENT)
            if len(asks) > start + _TOGETHER:
                await client.room()

    def unsent(self, start: int = -1) -> None:
        """The requests from this `expect` on did not leave; of the last one, if not said."""
        self._mux.forget(self._keys[start:])
        for index in range(len(self.answers))[start:]:
            if self.answers[index] is Missing.TIMEOUT:  # else counted when the connection broke
                self.put(index, Missing.UNSENT)

    def withdraw(self, start: int) -> None:
        """Expect no answers from this `expect` on: the requests did not leave."""
        self._mux.forget(self._keys[start:])
        self._left -= self.answers[start:].count(Missing.TIMEOUT)
        del self._keys[start:], self.answers[start:]

    def all_unsent(self) -> None:
        """None of the requests left."""
        self._mux.forget(self._keys)
        self.answers = [Missing.UNSENT] * len(self.answers)
        self._left = 0

    async def wait(self, timeout: float) -> list[Answer]:
        """Return all answers, in order, at most `timeout` seconds from now."""
        if self._left > 0:
            self._waiter = asyncio.get_running_loop().create_future()
            timer = self._mux.clock.call_later(timeout, self._expire)
            try:
                await self._waiter
            finally:
                timer.cancel()
                if self._left > 0:
                    self._mux.forget(self._keys)
        return self.answers

    def _expire(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Series:
    """One request that is answered by several messages; the first with a status is the last."""

    __slots__ = ("_mux", "_subject", "end", "key", "messages", "waiter")

    def __init__(self, mux: Mux, subject: str) -> None:
        self._mux = mux
        self._subject = subject
        self.waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self.key,) = mux.enter_all(self, 0, [subject])
        self.messages: list[Message] = []
        self.end: Answer = Missing.TIMEOUT
        """What came last: with a status, or why nothing more comes."""

    def put(self, index: int, answer: Answer) -> None:
        """Take in one message, and expect another one unless it is the last."""
        if isinstance(answer, Missing) or (answer.headers or {}).get("Status"):
            if not self.waiter.done():
                self.end = answer
                self.waiter.set_result(None)
            return
        self.messages.append(answer)
        self._mux.enter_again(self.key, self, index, self._subject)


class Mux:
    """Everything one connection asks and waits for."""

    def __init__(self, client: GuardedClient, clock: Clock) -> None:
        self.clock = clock
        self.client = client
        self._prefix = client.new_inbox() + "."
        self._entered = 0
        self._pending: dict[bytes, tuple[Batch | Series, int, str]] = {}

    async def start(self) -> None:
        """Subscribe to the answers."""
        await self.client.subscribe_all(f"{self._prefix}*", self._on_answers)

    def enter_all(self, batch: Batch | Series, index: int, subjects: Sequence[str]) -> list[str]:
        """Make room in the table for an answer to each, the first of which is this one of the
        batch; return their reply subjects."""
        numbers = range(self._entered, self._entered + len(subjects))
        self._entered = numbers.stop
        keys = [f"{self._prefix}{number}" for number in numbers]
        entries = zip(repeat(batch), count(index), subjects, strict=False)
        self._pending.update(zip(map(str.encode, keys), entries, strict=True))
        return keys

    def enter_again(self, key: str, series: Series, index: int, subject: str) -> None:
        """Expect another answer to the same request."""
        self._pending[key.encode()] = (series, index, subject)

    def forget(self, keys: Sequence[str]) -> None:
        """Drop what nobody waits for any more."""
        for key in keys:
            self._pending.pop(key.encode(), None)

    def _on_answers(self, run: Sequence[Message]) -> None:
        take = self._pending.pop
        for answer in run:
            entry = take(answer.subject, None)
            if entry is not None:
                entry[0].put(entry[1], answer)

    def fail_all(self) -> None:
        """The connection is gone: nothing in the table will be answered."""
        pending, self._pending = self._pending, {}
        for batch, index, _ in pending.values():
            batch.put(index, Missing.DISCONNECTED)

    def deny(self, words: str) -> None:
        """A permissions violation: end what waits on a subject that its words name."""
        for key, (batch, index, subject) in list(self._pending.items()):
            if f'"{subject.lower()}"' in words:  # the client lowers the server's words
                del self._pending[key]
                batch.put(index, Missing.DENIED)

    async def ask(self, asks: Sequence[Ask], timeout: float) -> list[Answer]:
        """Send every request, return every answer in the same order."""
        batch = Batch(self)
        await batch.send(asks)
        return await batch.wait(timeout)

    async def read(self, asks: Sequence[Ask], timeout: float) -> list[Series]:
        """Send every request; return when the last message of each is there, or after `timeout`
        seconds."""
        if not asks:
            return []
        all_ = [Series(self, subject) for subject, _ in asks]

        def end(missing: Missing = Missing.TIMEOUT) -> None:
            for each in all_:
                each.put(0, missing)

        saying = [(where, what, each.key) for (where, what), each in zip(asks, all_, strict=True)]
        if not await self.client.send_all(saying):
            end(Missing.UNSENT)
        timer = self.clock.call_later(timeout, end)
        try:
            for each in all_:
                await each.waiter
        finally:
            timer.cancel()
            self.forget([each.key for each in all_])
        return all_
