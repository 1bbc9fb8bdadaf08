"""Workers: a bounded number of long-lived tasks over one queue. No task per message.

What ends without waiting is run by one worker, call by call; another is woken when one waits. Who
waits for nothing keeps others from running, so that after a while they are given a turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from catga.engine.work import Work
from catga.ground.clock import Clock
from catga.ground.tasks import TaskOwner

__all__ = ["Pool"]

_STRETCH = 0.02
"""Seconds of handling after which others have a turn."""
_LOOKS = 16
"""Calls between two looks at the clock at the most; the first look is after the first call."""


class Pool:
    """Runs queued work, at most `size` at a time. Workers are started when first needed.

    `run` returns what is left to be awaited of a piece of work, None when it has ended. `pause` is
    called before anything is waited for. `failed` is called with what either of these raised of one
    piece of work; the others go on.
    """

    def __init__(
        self,
        size: int,
        run: Callable[[Work], Awaitable[None] | None],
        pause: Callable[[], None],
        failed: Callable[[Work, BaseException], None],
        tasks: TaskOwner,
        clock: Clock,
        name: str,
    ) -> None:
        self._size = size
        self._run = run
        self._pause = pause
        self._failed = failed
        self._tasks = tasks
        self._clock = clock
        self._name = name
        self._queue: deque[Work] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._workers = 0
        self._busy = 0
        self._joining: asyncio.Event | None = None

    def put(self, works: Iterable[Work]) -> None:
        """Queue work and see to it that somebody does it."""
        self._queue.extend(works)
        self._call_another()

    def _call_another(self) -> None:
        """Wake one more worker, or start one, when something is queued."""
        if not self._queue:
            return
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        if self._workers < self._size:
            self._workers += 1
            self._tasks.spawn(self._work(), self._name)

    async def _work(self) -> None:
        try:
            while True:
                try:
                    await self._work_on()
                except asyncio.CancelledError:
                    if self._tasks.closing:
                        raise
                    _forgive()  # a handler has cancelled the task it ran in
        finally:
            self._workers -= 1

    async def _work_on(self) -> None:
        """Do what is queued, then wait for more, until cancelled."""
        while True:
            waiting = self._work_through()
            self._pause()
            if waiting is not None:
                self._call_another()
                self._busy += 1
                try:
                    await waiting[1]
                except BaseException as error:
                    self._recover(waiting[0], error)
                finally:
                    self._busy -= 1
            elif self._queue:
                await asyncio.sleep(0)
            else:
                if self._joining is not None:
                    self._joining.set()
                waiter = asyncio.get_running_loop().create_future()
                self._idle.append(waiter)
                await waiter

    def _work_through(self) -> tuple[Work, Awaitable[None]] | None:
        """Do what is queued, until something waits or others are to have their turn."""
        queue, run, now = self._queue, self._run, self._clock.monotonic
        began, looks, left = now(), 1, 1
        while queue:
            work = queue.popleft()
            try:
                rest = run(work)
            except BaseException as error:
                self._recover(work, error)
            else:
                if rest is not None:
                    return work, rest
            left -= 1
            if not left:
                if now() - began >= _STRETCH:
                    break
                looks = left = min(2 * looks, _LOOKS)
        return None

    def _recover(self, work: Work, error: BaseException) -> None:
        """Go on after what nobody foresaw, unless it is the end of the process or of the bus."""
        if self._tasks.closing or isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise error
        if isinstance(error, asyncio.CancelledError):
            _forgive()
        self._failed(work, error)

    async def join(self, timeout: float) -> bool:
        """Wait until nothing is queued or running; False when `timeout` seconds were not enough."""
        checked = self._joining = asyncio.Event()
        deadline = self._clock.monotonic() + timeout
        timer = self._clock.call_later(timeout, checked.set)
        try:
            while self._queue or self._busy:
                if self._clock.monotonic() >= deadline:
                    return False
                checked.clear()
                await checked.wait()
            return True
        finally:
            timer.cancel()
            self._joining = None


def _forgive() -> None:
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
