"""Cancellation: it is never swallowed, and whatever was cancelled counts as not done."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from catga.spi import Receipt
from catga.testing.contract.messages import Ordered, keep
from catga.testing.harness import law
from catga.testing.raising import raises
from catga.testing.stage import Stage

__all__ = ["CancellationContract"]

T = TypeVar("T")
_TURNS = 8
"""Turns of the loop after which a publish is cancelled: before its first step, then in mid-way."""


class CancellationContract:
    """Laws of cancelled work."""

    @law(qos=1)
    async def test_a_cancelled_publish_is_cancelled_and_leaves_the_rest_usable(
        self, stage: Stage
    ) -> None:
        """QoS 1, first law: a cancelled publish has no receipt, at whatever turn of the loop it
        was; others keep theirs, and nothing is there twice."""
        transport = await stage.transport()
        await stage.store(transport, stage.out("Order", b"first"))
        accepted, sequences = [b"first"], set[str]()
        for turns in range(_TURNS):
            batch = [stage.out("Order", b"%d of %d" % (n, turns)) for n in range(50)]
            publishing = asyncio.create_task(transport.publish(batch))
            for _ in range(turns):
                await asyncio.sleep(0)
            if publishing.cancel():  # it has not ended yet
                with raises(asyncio.CancelledError):
                    await stage.wait(_result(publishing))
            (receipt,) = await stage.store(transport, stage.out("Order", b"after %d" % turns))
            accepted.append(b"after %d" % turns)
            sequences.add(receipt.sequence)
        assert len(sequences - {""}) == _TURNS, "a receipt of its own for each"
        found = await stage.copies("Order")
        assert [body for body in found if body in accepted] == accepted
        assert len(set(found)) == len(found), "stored zero or one time"

    @law(qos=1)
    async def test_a_bus_survives_cancelled_publishes_at_every_turn(self, stage: Stage) -> None:
        """QoS 1, first law: each caller has its own result, whoever else gave up."""
        bus = stage.bus(consume=False, publishes=[Ordered], settings={"publish_window": 4})
        async with stage.running(bus):
            for turns in range(12):
                tasks = [asyncio.create_task(bus.publish(Ordered(number))) for number in range(8)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
                await stage.wait(_ended(tasks))
                assert all(task.cancelled() or task.result() for task in tasks)
                assert not any(task.cancelled() for task in tasks[1::2])
                if turns == 0:
                    assert all(task.cancelled() for task in tasks[::2]), "none is swallowed"

    @law(qos=1)
    async def test_a_handler_that_was_cancelled_gets_it_again(self, stage: Stage) -> None:
        """QoS 1, third law: cancelled is not succeeded: nacked, never acknowledged."""

        async def cancel_once(_number: int, attempt: int) -> None:
            if attempt == 1:
                raise asyncio.CancelledError

        bus = stage.bus()
        heard = keep(bus, Ordered, cancel_once)
        async with stage.running(bus):
            await bus.publish(Ordered(1))
            await stage.until(lambda: bus.counts()["law/Ordered"].get("ack"))
            assert bus.counts()["law/Ordered"]["nack"] == 1
        assert heard.calls == [(1, 1), (1, 2)]

    @law(qos=1)
    async def test_what_still_runs_at_the_drain_deadline_goes_to_another(
        self, stage: Stage
    ) -> None:
        """QoS 1, third and tenth law: a handler that the end of its bus cancelled is nacked."""

        async def hang(_number: int, _attempt: int) -> None:
            await asyncio.Event().wait()

        first = stage.bus(settings={"drain_deadline": stage.scaled(0.5)})
        second = stage.bus()
        begun, heard = keep(first, Ordered, hang), keep(second, Ordered)
        async with stage.running(first):
            await first.publish(Ordered(1))
            await stage.until(lambda: begun.calls)
        async with stage.running(second):
            await stage.until(lambda: heard.calls)
        assert heard.calls == [(1, 2)]

    @law(qos=1)
    async def test_a_cancelled_program_drains_and_stays_cancelled(self, stage: Stage) -> None:
        """QoS 1, tenth law: leaving the bus by a cancellation still settles what is done."""
        bus, other = stage.bus(), stage.bus()
        heard, later = keep(bus, Ordered), keep(other, Ordered)

        async def program() -> None:
            async with bus:
                await bus.publish(Ordered(1))
                await asyncio.Event().wait()

        running = asyncio.create_task(program())
        await stage.until(lambda: heard.calls)
        running.cancel()
        await stage.until(running.done)
        assert running.cancelled(), "the cancellation was swallowed"
        async with stage.running(other):
            await other.publish(Ordered(2))
            await stage.until(lambda: later.calls)
            await stage.pass_time(3)
        assert later.calls == [(2, 1)]


async def _result(task: asyncio.Task[T]) -> T:
    return await task


async def _ended(tasks: list[asyncio.Task[Receipt]]) -> None:
    await asyncio.wait(tasks)
