"""Requests and their answers: one reply subscription, counted tokens, one table.

Batches wait with one future and one timer, whatever their size.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from catga.spi import Clock
from catga_nats.headers import direct_sequence
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
_NONE_YET = Missing.TIMEOUT


class Batch:
    """Answers that are awaited together.

    It stands in the table of the mux while an answer is missing. The reply subjects of its requests
    are one token and their numbers.
    """

    __slots__ = ("_begin", "_left", "_mux", "_token", "_waiter", "answers", "subjects")

    def __init__(self, mux: Mux) -> None:
        self._mux = mux
        self._token, self._begin = mux.token()
        self._left = 0
        self._waiter: asyncio.Future[None] | None = None
        self.subjects: list[str] = []
        self.answers: list[Answer] = []

    def expect(self, subject: str) -> str:
        """Add an answer to wait for; return the reply subject of the request to `subject`."""
        if self._left == 0:
            self._mux.waiting[self._token] = self
        self._left += 1
        self.subjects.append(subject)
        self.answers.append(_NONE_YET)
        return f"{self._begin}{len(self.answers) - 1}"

    def put(self, index: int, answer: Answer) -> None:
        """Take in one answer, once; the last one wakes the waiter."""
        if index >= len(self.answers) or self.answers[index] is not _NONE_YET:
            return
        self.answers[index] = answer
        self._left -= 1
        if self._left == 0:
            self._end()

    def _end(self) -> None:
        self._mux.waiting.pop(self._token, None)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self) -> None:
        """The connection is gone: nothing will be answered."""
        for index in range(len(self.answers)):
            self.put(index, Missing.DISCONNECTED)

    def deny(self, words: str) -> None:
        """A permissions violation: end what waits on a subject that its words name."""
        for index, subject in enumerate(self.subjects):
            if _is_named(subject, words):
                self.put(index, Missing.DENIED)

    async def send(self, asks: Sequence[Ask], headers: bytes = b"") -> None:
        """Expect an answer to each, and send them all, so many at a time that others have room."""
        client = self._mux.client
        for start in range(0, len(asks), _TOGETHER):
            part = [(where, what, self.expect(where)) for where, what in asks[start:][:_TOGETHER]]
            if not await client.send_all(part, headers):  # known at once: nothing came between
                self.unsent(start)
            if len(asks) > start + _TOGETHER:
                await client.room()

    def unsent(self, start: int = -1) -> None:
        """The requests from this `expect` on did not leave; of the last one, if not said."""
        for index in range(len(self.answers))[start:]:
            self.put(index, Missing.UNSENT)  # unless it counted when the connection broke

    def withdraw(self, start: int) -> None:
        """Expect no answers from this `expect` on: the requests did not leave."""
        self.unsent(start)
        del self.subjects[start:], self.answers[start:]

    async def wait(self, timeout: float) -> list[Answer]:
        """Return all answers, in order, at most `timeout` seconds from now."""
        if self._left > 0:
            self._waiter = asyncio.get_running_loop().create_future()
            timer = self._mux.clock.call_later(timeout, self._end)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._mux.waiting.pop(self._token, None)
        return self.answers


class Series:
    """One request that is answered by several stored messages, then by a status."""

    __slots__ = ("_mux", "_subject", "_token", "end", "messages", "reply", "waiter")

    def __init__(self, mux: Mux, subject: str) -> None:
        self._mux = mux
        self._subject = subject
        self._token, begin = mux.token()
        self.reply = f"{begin}0"
        self.waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.messages: list[Message] = []
        self.end: Answer = Missing.TIMEOUT
        """What came last: a status, or why nothing more comes."""
        mux.waiting[self._token] = self

    def put(self, index: int, answer: Answer) -> None:
        """Take in one message, and expect another one unless it is the last."""
        del index
        if isinstance(answer, Message) and direct_sequence(answer.head):
            self.messages.append(answer)
        elif not self.waiter.done():
            self._mux.waiting.pop(self._token, None)
            self.end = answer
            self.waiter.set_result(None)

    def fail(self) -> None:
        """The connection is gone: nothing more will come."""
        self.put(0, Missing.DISCONNECTED)

    def deny(self, words: str) -> None:
        """A permissions violation, perhaps of this request."""
        if _is_named(self._subject, words):
            self.put(0, Missing.DENIED)


def _is_named(subject: str, words: str) -> bool:
    return f'"{subject.lower()}"' in words  # the client lowers the server's words


class Mux:
    """Everything one connection asks and waits for."""

    def __init__(self, client: GuardedClient, clock: Clock) -> None:
        self.clock = clock
        self.client = client
        self._prefix = client.new_inbox() + "."
        self._skip = len(self._prefix)
        self._counter = itertools.count(1)
        self.waiting: dict[bytes, Batch | Series] = {}
        """Who waits for something, by token."""

    async def start(self) -> None:
        """Subscribe to the answers."""
        await self.client.subscribe_all(f"{self._prefix}*", self._on_answers)

    def token(self) -> tuple[bytes, str]:
        """Return a new token, and how the reply subjects under it begin."""
        number = next(self._counter)
        return b"%d" % number, f"{self._prefix}{number}-"

    def _on_answers(self, run: Sequence[Message]) -> None:
        waiting, skip = self.waiting, self._skip
        for answer in run:
            token, _, number = answer.subject[skip:].partition(b"-")
            waiter = waiting.get(token)
            if waiter is not None and number.isdigit():  # else it is late, or a stranger's
                waiter.put(int(number), answer)

    def fail_all(self) -> None:
        """The connection is gone: nothing in the table will be answered."""
        for waiter in tuple(self.waiting.values()):
            waiter.fail()

    def deny(self, words: str) -> None:
        """A permissions violation: end what waits on a subject that its words name."""
        for waiter in tuple(self.waiting.values()):
            waiter.deny(words)

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

        saying = [(where, what, each.reply) for (where, what), each in zip(asks, all_, strict=True)]
        if not await self.client.send_all(saying):
            end(Missing.UNSENT)
        timer = self.clock.call_later(timeout, end)
        try:
            for each in all_:
                await each.waiter
        finally:
            timer.cancel()
            end()  # what is left of them when this was cancelled
        return all_
