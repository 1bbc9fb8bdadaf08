"""Running one handler on one message: its own context, its own time limit."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import Any

from catga.engine.context import CURRENT, Context
from catga.engine.handling import Invoke
from catga.engine.work import State, Work
from catga.ground.ids import NEXT_ID, derived_ids
from catga.ground.tasks import run_in_context
from catga.model.envelope import Envelope
from catga.model.message import Identity, Message, adopt

__all__ = ["remember", "run_handler"]


async def run_handler(
    work: Work, message: Any, context: Context, invoke: Invoke, deadline: float
) -> BaseException | None:
    """Run the handler in the calling worker; return what it raised, if anything.

    `work.stop` says afterwards whether we ended it. Raises `CancelledError` only when the worker
    itself is being ended; the delivery's lease ends by itself then.
    """
    variables = copy_context()
    variables.run(CURRENT.set, context)
    # Of the group as well: two groups that publish the same are two senders.
    origin = (context.group, context.type, context.message_id)
    variables.run(NEXT_ID.set, derived_ids(*origin) if context.exactly_once else None)
    task = work.task = asyncio.current_task()
    work.deadline = deadline
    try:
        work.state = State.RUNNING
        work.response = await run_in_context(variables, invoke(message, context))
    except asyncio.CancelledError as cancelled:
        if work.stop is not None:
            return TimeoutError(work.stop.value)
        if task is not None and task.cancelling():
            raise
        return cancelled  # the handler's own doing: it awaited something that was cancelled
    except Exception as error:
        return error
    finally:
        # At once, and before anything is awaited: from here on a cancel would hit the settlement.
        work.state = State.SETTLING
        work.deadline = float("inf")
        if work.stop is not None and task is not None:
            task.uncancel()
    return None


def remember(message: Any, envelope: Envelope) -> None:
    """Give a received message the identity it was sent with."""
    if isinstance(message, Message):
        adopt(message, Identity(envelope.id, envelope.time, envelope.correlation_id))
