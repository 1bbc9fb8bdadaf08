"""What a handler publishes at QoS 2: the same ids in every run, so that a re-run adds nothing."""

from __future__ import annotations

from catga.bus import Bus
from catga.codecs import read_envelope
from catga.model.envelope import Envelope
from catga.spi import Kind
from catga.testing.contract.messages import Charged, Ordered, Refunded, keep
from catga.testing.harness import law
from catga.testing.stage import Stage

__all__ = ["DerivedIdsContract"]


class DerivedIdsContract:
    """Laws of consume, transform, produce."""

    @law(qos=2)
    async def test_a_rerun_publishes_nothing_new(self, stage: Stage) -> None:
        """QoS 2, fifth law: ids are derived from the handled message and the ordinal of the
        publish: what a run that failed had published, the next one does not publish again."""
        bus = stage.bus(publishes=[Refunded])

        async def refund(number: int, attempt: int) -> None:
            await bus.publish(Refunded(number))
            await bus.publish(Refunded(number))
            if attempt == 1:
                raise ValueError("after both were stored")

        keep(bus, Charged, refund)
        async with stage.running(bus):
            await bus.publish(Charged(1))
            await bus.publish(Charged(2))
            await stage.until(lambda: bus.counts()["law/Charged"].get("ack") == 2)
        numbers = [envelope.data for envelope in await _stored(stage)]
        assert sorted(numbers) == [b'{"number":1}'] * 2 + [b'{"number":2}'] * 2

    @law(qos=2)
    async def test_a_rerun_in_another_process_publishes_nothing_new(self, stage: Stage) -> None:
        """QoS 2, fifth law: over a bus that dies in mid-handler, whoever runs it then."""
        first, second = stage.bus(), stage.bus(service="successor", group="law")
        gone = _refund(first, then_fail=True)
        done = _refund(second, then_fail=False)
        async with stage.running(first):
            await first.publish(Charged(1))
            await stage.until(lambda: gone)
            await stage.wait(first.drain())
        async with stage.running(second):
            await stage.until(lambda: second.counts()["law/Charged"].get("ack"))
        assert done[0] == gone[0]
        assert len(await _stored(stage)) == 1

    @law(qos=2)
    async def test_a_handler_publishes_while_its_bus_still_starts(self, stage: Stage) -> None:
        """Words: what waits is handled as soon as it is subscribed to: also then the handler's bus
        publishes, and no attempt is lost to it."""
        first, second = stage.bus(group="first"), stage.bus(group="second")
        async with stage.running(first):
            await first.publish(Charged(1))
        ids = _refund(second, then_fail=False)
        heard = keep(second, Ordered)
        async with stage.running(second):
            await second.publish(Ordered(1))
            await stage.until(lambda: ids and heard.calls)
            assert not second.counts()["second/Charged"].get("failed")
        assert len(ids) == 1

    @law(qos=2)
    async def test_each_group_publishes_its_own(self, stage: Stage) -> None:
        """QoS 2, fifth law: the id is derived from the group too: two groups are two senders."""
        one, two = stage.bus(group="one"), stage.bus(group="two")
        ids = [_refund(bus, then_fail=False) for bus in (one, two)]
        async with stage.running(one, two):
            await one.publish(Charged(1))
            await stage.until(lambda: all(ids))
        assert ids[0] != ids[1]
        assert len(await _stored(stage)) == 2

    @law(qos=2)
    async def test_what_is_published_names_what_it_came_from(self, stage: Stage) -> None:
        """QoS 2, fifth law: the parent id is the handled message's; an id given by hand stays."""
        bus = stage.bus(publishes=[Refunded])
        mine = Refunded(3)
        before = mine.message_id

        async def refund(number: int, _attempt: int) -> None:
            await bus.publish(Refunded(number))
            await bus.publish(Refunded(number), message_id="by-hand")
            await bus.publish(mine)

        keep(bus, Charged, refund)
        async with stage.running(bus):
            receipt = await bus.publish(Charged(1))
            await stage.until(lambda: bus.counts()["law/Charged"].get("ack"))
        found = await _stored(stage)
        assert {envelope.parent_id for envelope in found} == {receipt.message_id}
        ids = {envelope.id for envelope in found}
        assert {"by-hand", before} < ids
        assert len(ids) == 3
        assert all(len(each) <= 128 and each.isascii() and each.isprintable() for each in ids)

    @law(qos=2)
    async def test_at_qos_1_every_run_publishes_anew(self, stage: Stage) -> None:
        """QoS 2, words: a handler at QoS 1 may be right to publish something else next time."""
        bus = stage.bus(publishes=[Refunded])

        async def refund(number: int, attempt: int) -> None:
            await bus.publish(Refunded(number))
            if attempt == 1:
                raise ValueError("after it was stored")

        keep(bus, Ordered, refund)
        async with stage.running(bus):
            await bus.publish(Ordered(1))
            await stage.until(lambda: bus.counts()["law/Ordered"].get("ack"))
        found = await _stored(stage)
        assert len(found) == 2
        assert {envelope.parent_id for envelope in found} == {None}


def _refund(bus: Bus, *, then_fail: bool) -> list[str]:
    """Let the bus answer each charge with a refund; return the ids these get."""
    ids: list[str] = []

    async def refund(number: int, _attempt: int) -> None:
        ids.append((await bus.publish(Refunded(number))).message_id)
        if then_fail:
            raise ValueError("after it was stored")

    keep(bus, Charged, refund)
    return ids


async def _stored(stage: Stage) -> list[Envelope]:
    """Return what the broker stores of refunds, in the end."""
    assert stage.tap.stored(Kind.LOG)
    return [read_envelope(body) for body in await stage.copies("Refunded")]
