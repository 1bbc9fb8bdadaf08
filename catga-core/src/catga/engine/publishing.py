"""Publishing: concurrent single publishes leave together, unknown outcomes are repeated."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias

from catga.engine.signals import Signals
from catga.engine.wording import tell_of
from catga.errors import CatgaError, PayloadTooLarge, PublishUnknown
from catga.ground.clock import Clock
from catga.ground.tasks import TaskOwner, wait_all
from catga.model.qos import QualityOfService
from catga.spi import Outgoing, PublishResult, Receipt, Rejected, Transport, Unknown

__all__ = ["Publisher", "broken_off", "receipt_or_raise"]

_log = logging.getLogger("catga")
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_BATCH = 64
"""Of single publishes that leave together: of a larger one all would wait for the last answer, and
then the server for all of them, in turn."""


def receipt_or_raise(result: PublishResult) -> Receipt:
    """Return the receipt, or raise what the result stands for."""
    if isinstance(result, Receipt):
        return result
    if isinstance(result, Rejected):
        raise result.error
    if isinstance(result.error, PublishUnknown):
        raise result.error
    raise PublishUnknown(
        f"it is not known whether the message was stored ({result.error}): "
        "publishing the same message again is safe at QoS 2"
    ) from result.error


def broken_off(batch: Sequence[object], error: BaseException) -> list[PublishResult]:
    """Return the results of a batch of which nobody knows what became."""
    words = f"publishing was broken off: {error!r}"
    return [Unknown(PublishUnknown(words)) for _ in batch]


def _worth_repeating(outgoing: Outgoing, result: PublishResult) -> bool:
    if outgoing.qos is QualityOfService.AT_MOST_ONCE:
        return False
    return isinstance(result, Unknown) or (isinstance(result, Rejected) and result.transient)


_Waiting: TypeAlias = tuple[Outgoing, "asyncio.Future[PublishResult]"]
Otherwise: TypeAlias = Callable[[CatgaError], Outgoing]


class Publisher:
    """Sends encoded messages through one transport.

    At QoS 1 and 2 at most `window` messages are in flight: a full window makes `publish` wait.
    """

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        tasks: TaskOwner,
        *,
        window: int,
        deadline: float,
        signals: Signals,
        random: Callable[[], float],
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._tasks = tasks
        self._window = window
        self._deadline = deadline
        self._signals = signals
        self._random = random
        self._pending: list[_Waiting] = []
        self._posts: list[tuple[Outgoing, Otherwise | None]] = []
        self._posting: set[asyncio.Task[None]] = set()
        self._in_flight = 0
        self._turns: deque[asyncio.Future[None]] = deque()
        self._closed = False

    def publish(self, outgoing: Outgoing) -> Awaitable[PublishResult]:
        """Send one message together with the others of this loop turn; what is returned must be
        awaited, and gives its own result.

        Cancelled before it left: it was not sent. Cancelled later: it may be stored.
        """
        if outgoing.qos is QualityOfService.AT_MOST_ONCE:
            return self._hand_over(outgoing)
        if self._in_flight >= self._window:
            return self._in_turn(outgoing)
        return self._queue(outgoing)

    async def _hand_over(self, outgoing: Outgoing) -> PublishResult:
        result = (await self._attempt((outgoing,)))[0]
        self.tell(outgoing, result)
        return result

    async def _in_turn(self, outgoing: Outgoing) -> PublishResult:
        while self._in_flight >= self._window:
            await self._wait_for_room()
        return await self._queue(outgoing)

    def _queue(self, outgoing: Outgoing) -> asyncio.Future[PublishResult]:
        future: asyncio.Future[PublishResult] = asyncio.get_running_loop().create_future()
        self._in_flight += 1
        self._pending.append((outgoing, future))
        if len(self._pending) == 1:  # it begins when all that is ready now has had its turn
            self._leave(self._pending)
        return future

    def post(self, outgoing: Outgoing, otherwise: Otherwise | None = None) -> None:
        """Send one message at QoS 0 (a response), together with the others of this loop turn,
        without waiting for it.

        When it is too large, what `otherwise` makes of that is sent instead; any other failure
        is only signalled.
        """
        self._posts.append((outgoing, otherwise))
        if len(self._posts) == 1:
            task = self._tasks.spawn(self._post(), "send responses")
            self._posting.add(task)
            task.add_done_callback(self._posting.discard)

    async def _post(self) -> None:
        posts, self._posts = self._posts, []
        for start in range(0, len(posts), _BATCH):
            part = posts[start : start + _BATCH]
            results = await self.send([outgoing for outgoing, _ in part])
            instead = [
                otherwise(result.error)
                for (_, otherwise), result in zip(part, results, strict=True)
                if otherwise is not None
                and isinstance(result, Rejected)
                and isinstance(result.error, PayloadTooLarge)
            ]
            if instead:
                await self.send(instead)

    async def flush(self, timeout: float) -> None:
        """Wait for what was posted, at most `timeout` seconds."""
        await wait_all(self._posting, timeout)

    async def _wait_for_room(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._next_turns()  # the place was ours: hand it on
            raise

    def _next_turns(self) -> None:
        room = self._window - self._in_flight
        while self._turns and room > 0:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                room -= 1

    def _leave(self, batch: list[_Waiting]) -> None:
        task = self._tasks.spawn(self._deliver(batch), "publish a batch")
        task.add_done_callback(partial(self._left, batch))

    async def _deliver(self, batch: list[_Waiting]) -> None:
        """Send what has come together until now; what is too much leaves beside it."""
        if batch is self._pending:
            self._pending = []
            count = len(batch)
            batch[:] = [waiting for waiting in batch if not waiting[1].cancelled()]
            self._in_flight -= count - len(batch)
            for start in range(_BATCH, len(batch), _BATCH):
                self._leave(batch[start : start + _BATCH])
            del batch[_BATCH:]
        results = await self.send([outgoing for outgoing, _ in batch]) if batch else []
        self._conclude(batch, results)

    def _left(self, batch: list[_Waiting], task: asyncio.Task[None]) -> None:
        """See to it that nobody waits for ever; a task that was cancelled may not have begun."""
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            if batch is self._pending:
                self._pending = []
            self._conclude(batch, broken_off(batch, error))

    def _conclude(self, batch: list[_Waiting], results: list[PublishResult]) -> None:
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
        self._in_flight -= len(batch)
        self._next_turns()

    def close(self) -> None:
        """Repeat nothing from now on."""
        self._closed = True

    async def send(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        """Send a batch now; repeat what is unknown or can still succeed until the deadline."""
        results = await self._attempt(batch)
        again = [
            i
            for i, result in enumerate(results)
            if type(result) is not Receipt and _worth_repeating(batch[i], result)
        ]
        if again:
            await self._repeat(batch, results, again)
        if self._signals.published is not None:
            for outgoing, result in zip(batch, results, strict=True):
                self.tell(outgoing, result)
        return results

    async def _attempt(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        """Send it once; a transport that raises, whatever it raises, or does not answer for each,
        has not said what became of it."""
        try:
            results = await self._transport.publish(batch)
        except Exception as error:
            tell_of(error, "publishing met what nobody foresaw")
            return broken_off(batch, error)
        if len(results) != len(batch):
            words = f"{len(results)} results for {len(batch)} messages"
            _log.error("the transport gave %s", words)
            return broken_off(batch, RuntimeError(words))
        return results

    def tell(self, outgoing: Outgoing, result: PublishResult) -> None:
        """Let the instruments know what was stored, also when it was stored in another way."""
        if self._signals.published is not None:
            self._signals.published(outgoing.message_id, outgoing.subject.text, result)

    async def _repeat(
        self, batch: Sequence[Outgoing], results: list[PublishResult], again: list[int]
    ) -> None:
        deadline = self._clock.monotonic() + self._deadline
        pause = _FIRST_PAUSE
        while again and self._clock.monotonic() < deadline:
            await self._clock.sleep(pause * (0.5 + self._random() / 2))
            if self._closed:
                return
            pause = min(pause * 2, _LONGEST_PAUSE)
            repeated = await self._attempt([batch[i] for i in again])
            for i, result in zip(again, repeated, strict=True):
                # What was unknown once stays so: the first try may still be stored.
                if isinstance(result, Rejected) and isinstance(results[i], Unknown):
                    continue
                results[i] = result
            again = [i for i in again if _worth_repeating(batch[i], results[i])]
