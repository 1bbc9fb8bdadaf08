"""Running one handler on one message: its own context, its own time limit, no task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

from catga.engine.context import CURRENT
from catga.engine.handling import Call
from catga.engine.work import State, Work
from catga.ground.ids import NEXT_ID
from catga.ground.tasks import TaskOwner, run_in_context

__all__ = ["run_handler"]

# Members of an enumeration are looked up dearly.
_ENDED = object()
_RUNNING, _SETTLING = State.RUNNING, State.SETTLING


def run_handler(
    work: Work, message: Any, call: Call, deadline: float, owner: TaskOwner
) -> Coroutine[Any, Any, None] | None:
    """Run the handler up to where it waits; return what is left of it, None when it has ended.

    Once it has ended, `work.response` is what it returned, `work.error` what it raised, if
    anything, and `work.stop` says whether we ended it. What is left is awaited in the same task.
    """
    variables = copy_context()
    ids = work.next_id if work.exactly else None
    try:
        handler = call.invoke(message, work.context) if call.wants_context else call.invoke(message)
        waiting = variables.run(_begin, handler, work, ids, call.answers)
        if waiting is not _ENDED:
            work.state = _RUNNING
            work.task = asyncio.current_task()
            work.deadline = deadline
            return _finish(work, run_in_context(variables, handler, waiting), owner)
    except (KeyboardInterrupt, SystemExit):
        raise  # the end of the process
    except BaseException as error:  # also a cancellation: nobody else ran meanwhile
        work.error = error
    work.state = _SETTLING
    return None


def _begin(
    handler: Coroutine[Any, Any, Any],
    work: Work,
    ids: Callable[[], str] | None,
    answers: bool,
) -> Any:
    """Run in the handler's own context: what it sets is gone with it."""
    CURRENT.set(work)
    if ids is not NEXT_ID.get():  # setting is ten times dearer than looking
        NEXT_ID.set(ids)
    if not answers:
        # What it returns is nothing to anybody, and an exception dear just to say that it ended.
        return next(handler.__await__(), _ENDED)
    try:
        return handler.send(None)
    except StopIteration as stop:  # here, for an exception is dear on its way out of a context
        work.response = stop.value
        return _ENDED


async def _finish(work: Work, rest: Coroutine[Any, Any, Any], owner: TaskOwner) -> None:
    """Run a handler that waits to its end.

    Raises `CancelledError` only when the owner ends its worker; the delivery's lease ends by
    itself then. Whatever else a handler ends with is an error of its own.
    """
    task = work.task
    try:
        work.response = await rest
    except asyncio.CancelledError as cancelled:
        if work.stop is not None:
            work.error = TimeoutError(work.stop.value)
        elif owner.closing:
            raise
        else:
            work.error = cancelled  # the handler's own doing: what it awaited, or its own task
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise  # the end of the process, or of the loop
    except BaseException as error:
        work.error = error
    finally:
        # At once, and before anything is awaited: from here on a cancel would hit the settlement.
        work.state = _SETTLING
        work.deadline = float("inf")
        if task is not None and not owner.closing:
            while task.cancelling():
                task.uncancel()
