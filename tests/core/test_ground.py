"""The ground floor: clocks, mailboxes, and tasks that end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Awaitable, Coroutine
from functools import partial
from typing import Any, TypeVar

import pytest

from catga.ground.mailbox import Mailbox
from catga.ground.tasks import TaskOwner, end_all, finish, run_in_context
from catga.testing import ManualClock, settle_loop

T = TypeVar("T")


def test_a_manual_clock_runs_what_is_due_in_order_and_each_at_its_moment() -> None:
    async def law() -> None:
        clock = ManualClock()
        seen: list[tuple[str, float]] = []

        def note(name: str) -> None:
            seen.append((name, clock.monotonic()))

        for name, delay in (("late", 3.0), ("early", 1.0), ("never", 2.0)):
            timer = clock.call_later(delay, partial(note, name))
            if name == "never":
                timer.cancel()
        await clock.advance(5)
        assert seen == [("early", 1.0), ("late", 3.0)]
        assert clock.monotonic() == 5

    asyncio.run(law())


def test_a_mailbox_hands_over_in_order_in_batches_and_ends_when_closed() -> None:
    async def law() -> None:
        box: Mailbox[int] = Mailbox(ManualClock())
        reading = asyncio.create_task(box.receive(2, 10))
        await settle_loop()
        box.extend([1, 2, 3])
        assert await reading == [1, 2]
        box.close()
        assert await box.receive(2, 10) == [3]
        assert await box.receive(2, 10) == []

    asyncio.run(law())


def test_a_mailbox_gives_up_waiting_when_its_time_has_come() -> None:
    async def law() -> None:
        clock = ManualClock()
        box: Mailbox[int] = Mailbox(clock)
        reading = asyncio.create_task(box.receive(1, 5))
        await clock.advance(4)
        assert not reading.done()
        await clock.advance(1)
        assert await reading == []

    asyncio.run(law())


def test_cleaning_up_survives_two_cancellations() -> None:
    async def law() -> None:
        go = asyncio.Event()
        ends: list[str] = []

        async def clean_up() -> None:
            await go.wait()
            ends.append("clean")

        task = asyncio.create_task(finish(clean_up()))
        await settle_loop()
        task.cancel()
        await settle_loop()
        task.cancel()
        await settle_loop()
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ends == ["clean"]

    asyncio.run(law())


def test_an_owner_ends_its_tasks_and_names_the_one_that_will_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def law() -> None:
        owner = TaskOwner()
        stop = asyncio.Event()

        async def stubborn() -> None:
            while not stop.is_set():
                try:
                    await stop.wait()
                except asyncio.CancelledError:
                    continue

        obedient = owner.spawn(asyncio.Event().wait(), "obedient")
        left = owner.spawn(stubborn(), "stubborn")
        await settle_loop()
        await owner.close(patience=0.01)
        assert obedient.cancelled()
        assert "'stubborn' does not end" in caplog.text
        stop.set()
        await left

    with caplog.at_level(logging.ERROR, "catga"):
        asyncio.run(law())


def test_a_task_that_loses_its_first_cancellation_is_ended_all_the_same() -> None:
    """As `asyncio.wait_for` loses it before Python 3.12."""

    async def forgetful() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    async def law() -> None:
        task = asyncio.create_task(forgetful())
        await settle_loop()
        assert await end_all([task]) == []
        assert task.cancelled()

    asyncio.run(law())


def test_running_in_a_context_passes_results_errors_and_cancellation() -> None:
    async def law() -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("v", default="outside")
        context = contextvars.copy_context()
        context.run(variable.set, "inside")

        async def work(fail: bool) -> str:
            await asyncio.sleep(0)
            if fail:
                raise ValueError("inside")
            return variable.get()

        def run(coroutine: Coroutine[Any, Any, T]) -> Awaitable[T]:
            return run_in_context(context, coroutine, context.run(coroutine.send, None))

        assert await run(work(fail=False)) == "inside"
        assert variable.get() == "outside"
        with pytest.raises(ValueError, match="inside"):
            await run(work(fail=True))

        async def wait() -> None:
            await asyncio.Event().wait()

        async def outer() -> None:
            await run(wait())

        task = asyncio.create_task(outer())
        await settle_loop()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(law())
