"""Accounting: every delivery and every accepted message has one place in the books."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from catga.bus import Bus
from catga.model.retry import Reject
from catga.spi import Kind
from catga.testing.contract.messages import Ordered, Ticked, keep
from catga.testing.harness import law
from catga.testing.stage import Stage

__all__ = ["AccountingContract"]

_ENDS = ("ack", "nack", "dead-letter", "lost", "unknown", "dropped", "in-hand")


class AccountingContract:
    """Laws of `Bus.counts`."""

    @law(qos=1)
    async def test_the_books_balance_at_every_moment(self, stage: Stage) -> None:
        """QoS 1, words: per group, accepted = acknowledged + dead letters + in flight; and what
        one member received it has settled, lost, or still in hand."""

        async def act(number: int, attempt: int) -> None:
            if number % 5 == 1 and attempt == 1:
                raise ValueError("once")
            if number % 5 == 2:
                raise ValueError("always")
            if number % 5 == 3:
                raise Reject("never")
            if number % 5 == 4 and attempt == 1:
                await asyncio.Event().wait()

        settings: dict[str, object] = {"attempts": 2, "handler_timeout": stage.scaled(0.5)}
        buses = [stage.bus(settings=settings) for _ in range(2)]
        calm = stage.bus(group="calm")
        for bus in buses:
            keep(bus, Ordered, act)
        keep(calm, Ordered)
        transport = await stage.transport()
        async with stage.running(*buses, calm):
            await stage.store(transport, stage.out("Ordered", b"poison"))
            accepted = (
                1 + (await stage.wait(buses[0].publish_many(map(Ordered, range(40))))).accepted
            )

            def at_rest() -> bool:
                for bus in (*buses, calm):
                    _check(bus)
                ended = _ended(buses, "law/Ordered")
                assert ended <= accepted, "some ended twice"
                return ended == _ended([calm], "calm/Ordered") == accepted

            await stage.until(at_rest)
            assert sum(bus.counts()["law/Ordered"]["in-hand"] for bus in buses) == 0
        for group, dead in (("law", 1 + 8 + 8), ("calm", 1)):
            letters = [each for each in stage.tap.stored(Kind.DEAD) if each.subject.group == group]
            assert len(letters) == dead

    @law(qos=0)
    async def test_the_books_balance_for_what_is_live(self, stage: Stage) -> None:
        """QoS 0, words: what was received was handled, or was lost and is counted as that."""

        async def act(number: int, _attempt: int) -> None:
            if number % 3 == 1:
                raise ValueError("no")
            if number % 3 == 2:
                await asyncio.Event().wait()

        bus = stage.bus(settings={"handler_timeout": stage.scaled(0.3)})
        keep(bus, Ticked, act, broadcast=True)
        transport = await stage.transport()
        name = "broadcast/Ticked"

        def at_rest() -> bool:
            counts = _check(bus)[name]
            return counts.get("received") == 13 and counts["in-hand"] == 0

        async with stage.running(bus):
            for number in range(12):
                await bus.publish(Ticked(number))
            await stage.store(transport, stage.out("Ticked", b"poison", qos=0))
            await stage.until(at_rest)
            counts = bus.counts()[name]
        assert (counts["ack"], counts["handled"]) == (4, 4)
        assert (counts["dropped"], counts["failed"], counts["poison"]) == (9, 8, 1)


def _check(bus: Bus) -> Mapping[str, Mapping[str, int]]:
    """Assert that every page of the books balances; return them."""
    books = bus.counts()
    for name, counts in books.items():
        ends = sum(counts.get(word, 0) for word in _ENDS)
        assert counts.get("received", 0) == ends, f"{name} does not balance: {counts}"
    return books


def _ended(buses: list[Bus], name: str) -> int:
    words = ("ack", "dead-letter")
    return sum(bus.counts()[name].get(word, 0) for bus in buses for word in words)
