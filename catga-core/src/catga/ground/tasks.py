"""The hard asyncio idioms, once: owned tasks, clean-up that a second cancel cannot interrupt."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
import types
from collections.abc import Callable, Collection, Coroutine, Generator, Iterable
from typing import Any, TypeVar

__all__ = ["TaskOwner", "end_all", "finish", "first_of", "run_in_context", "wait_all"]

T = TypeVar("T")
_log = logging.getLogger("catga")
_CANCEL_AGAIN = 1.0
"""Seconds: who cleans up after its cancellation is not disturbed before."""


async def end_all(
    tasks: Collection[asyncio.Task[Any]], patience: float = 5.0
) -> list[asyncio.Task[Any]]:
    """Cancel these, and wait until all have ended, at most `patience` seconds; return the rest.

    They are cancelled again and again: before Python 3.12 `asyncio.wait_for` swallows a
    cancellation that comes together with its result. Who asks is left out; a collection that
    changes meanwhile is looked at anew.
    """
    current = asyncio.current_task()
    deadline = time.monotonic() + patience
    while left := [task for task in tasks if task is not current and not task.done()]:
        patience = deadline - time.monotonic()
        if patience <= 0:
            break
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=min(patience, _CANCEL_AGAIN))
    return left


class TaskOwner:
    """Owns background tasks: holds them, reports what they raise, ends them together."""

    def __init__(self, on_failure: Callable[[str, BaseException], None] | None = None) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_failure = on_failure
        self.closing = False
        """Whether a task that is cancelled has to end; before, nobody here cancels one."""

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start `work` as a task of this owner."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        _log.error("the task %r ended with an error", task.get_name(), exc_info=error)
        if self._on_failure is not None:
            self._on_failure(task.get_name(), error)

    async def close(self, patience: float = 5.0) -> None:
        """Cancel every task and wait until all have ended, at most `patience` seconds. Idempotent.

        A task that swallows its cancellation is named in the log and left behind.
        """
        self.closing = True
        for task in await end_all(self._tasks, patience):
            _log.error("the task %r does not end when cancelled", task.get_name())


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end even when the caller is cancelled meanwhile (perhaps twice).

    The cancellation is raised afterwards. `work` must be bounded in time by itself.
    """
    task = asyncio.get_running_loop().create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            _log.error("clean-up failed during cancellation", exc_info=failure)
        raise cancelled
    return task.result()


async def wait_all(tasks: Iterable[asyncio.Task[Any]], timeout: float | None) -> bool:
    """Wait until all have ended, at most `timeout` seconds; say whether they all did."""
    pending = [task for task in tasks if not task.done()]
    if not pending:
        return True
    _, late = await asyncio.wait(pending, timeout=timeout)
    return not late


async def first_of(work: asyncio.Future[T], expired: asyncio.Event) -> bool:
    """Wait for `work` until `expired` is set; say whether `work` is done. Cancels neither."""
    if work.done():
        return True
    timeout: asyncio.Future[Any] = asyncio.ensure_future(expired.wait())
    both: list[asyncio.Future[Any]] = [work, timeout]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timeout.cancel()
    return work.done()


@types.coroutine
def run_in_context(
    context: contextvars.Context, work: Coroutine[Any, Any, T], waiting: Any
) -> Generator[Any, Any, T]:
    """Await `work` in this task, its context variables kept in `context`. It was begun there, and
    waits for `waiting`.

    A task per message would give the same isolation at twenty times the price.
    """
    try:
        while True:
            sent: Any = None
            raised: BaseException | None = None
            try:
                sent = yield waiting
            except BaseException as error:
                raised = error
            try:
                if raised is None:
                    waiting = context.run(work.send, sent)
                else:
                    waiting = context.run(work.throw, raised)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]  # a coroutine's return value
    finally:
        work.close()
