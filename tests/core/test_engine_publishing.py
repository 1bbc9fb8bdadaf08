"""Publishing: what a receipt means, what is repeated, what is refused before anything is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import pairwise

import attrs
import pytest

from catga import (
    CatgaError,
    ConfigurationError,
    ConnectionLost,
    Event,
    PublishRejected,
    PublishUnknown,
    QualityOfService,
    Receipt,
    RequestTimeout,
    TransportError,
)
from catga.spi import Outgoing, PublishResult, Rejected, Unknown
from catga_inmemory.transport import MemoryTransport
from core.engine_kit import Asked, Fast, Once, Order, Probe, broker_of, eventually, run, stored


class Unreliable:
    """The memory transport with a bad line: each publish call follows the next word of a script.

    `lost`: stored, but the reply does not come. `down`: not sent. `no`: refused for good.
    `slow`: stored, and the reply takes some turns of the loop.
    `raise`: stored, and then it raises what its interface does not know.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, script: Sequence[str]) -> None:
        self.calls: list[int] = []
        words = iter(script)
        reliable = MemoryTransport.publish

        async def publish(
            transport: MemoryTransport, batch: Sequence[Outgoing]
        ) -> list[PublishResult]:
            self.calls.append(len(batch))
            word = next(words, "fine")
            if word == "down":
                return [Rejected(ConnectionLost("down"), transient=True) for _ in batch]
            if word == "no":
                return [Rejected(PublishRejected("no")) for _ in batch]
            results = await reliable(transport, batch)
            if word == "lost":
                return [Unknown(TransportError("no reply")) for _ in batch]
            if word == "raise":
                raise AttributeError("_loop")
            for _ in range(3 if word == "slow" else 0):
                await asyncio.sleep(0)
            return results

        monkeypatch.setattr(MemoryTransport, "publish", publish)


@pytest.mark.parametrize("words", [["lost", "lost"], ["raise", "lost"], ["lost", "raise"]])
def test_an_unknown_outcome_is_repeated_and_stores_nothing_new(
    monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    async def law(probe: Probe) -> None:
        line = Unreliable(monkeypatch, words)
        bus = probe.bus(consume=False)
        async with bus:
            publishing = asyncio.create_task(bus.publish(Once(1)))
            await probe.pass_time(5)
            receipt = await publishing
            assert receipt.duplicate
            assert line.calls == [1, 1, 1]
            assert len(stored(bus, "Once")) == 1

    run(law)


def test_what_stays_unknown_until_the_deadline_is_said_to_be_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def law(probe: Probe) -> None:
        Unreliable(monkeypatch, ["lost"] + ["down"] * 1000)
        bus = probe.bus({"publish_deadline": 3}, consume=False)
        async with bus:
            publishing = asyncio.create_task(bus.publish(Order(1)))
            await probe.pass_time(2)
            assert not publishing.done()
            await probe.pass_time(3)
            with pytest.raises(PublishUnknown):  # not rejected: the first try may be stored
                await publishing

    run(law)


def test_a_connection_that_comes_back_in_time_costs_nothing_but_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def law(probe: Probe) -> None:
        Unreliable(monkeypatch, ["down"] * 4)
        bus = probe.bus(consume=False)
        async with bus:
            publishing = asyncio.create_task(bus.publish(Order(1)))
            await probe.pass_time(10)
            assert isinstance(await publishing, Receipt)

    run(law)


def test_qos_0_is_never_repeated_and_says_at_once_when_nothing_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def law(probe: Probe) -> None:
        line = Unreliable(monkeypatch, ["down"])
        bus = probe.bus(consume=False)
        async with bus:
            with pytest.raises(ConnectionLost):
                await bus.publish(Fast(1))
            assert line.calls == [1]

    run(law)


def test_concurrent_publishes_leave_together_and_each_gets_its_own_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus(consume=False, publishes=[Order])
        async with bus:
            first = await bus.publish(Order(0))
            line = Unreliable(monkeypatch, [])
            again = Order(5)
            await asyncio.gather(*(bus.publish(Order(n)) for n in range(99)), bus.publish(again))
            # Not all of them: callers that have their answer go on while the others wait.
            assert sorted(line.calls) == [36, 64]
            receipts = await asyncio.gather(bus.publish(again), bus.publish(Order(1)))
            assert [receipt.duplicate for receipt in receipts] == [True, False]
            assert first.sequence == "1"

    run(law)


def test_a_full_window_makes_publish_wait_and_loses_nothing() -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus({"publish_window": 10}, consume=False)
        async with bus:
            receipts = await asyncio.gather(*(bus.publish(Order(n)) for n in range(500)))
            assert len({receipt.sequence for receipt in receipts}) == 500
            assert bus._session.publisher._in_flight == 0  # type: ignore[union-attr]

    run(law)


def test_a_publish_cancelled_before_it_left_is_not_sent() -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus(consume=False, publishes=[Order])
        async with bus:
            publishing = asyncio.create_task(bus.publish(Order(1)))
            await asyncio.sleep(0)
            publishing.cancel()
            await probe.pass_time(1)
            assert stored(bus, "Order") == []
            await bus.publish(Order(2))
            assert bus._session.publisher._in_flight == 0  # type: ignore[union-attr]

    run(law)


@pytest.mark.parametrize("kind", [Fast, Order])
def test_who_publishes_one_by_one_lets_others_have_their_turn(kind: type[Fast | Order]) -> None:
    async def law(probe: Probe) -> None:
        handled: list[int] = []
        bus = probe.bus()

        @bus.handle(kind)
        async def handle(message: Fast | Order) -> None:
            handled.append(message.number)

        async with bus:
            for number in range(2000):
                await bus.publish(kind(number))
            assert handled

    run(law)


def test_publish_many_reports_counts_and_each_failure_with_its_position(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus(consume=False, publishes=[Order])
        async with bus:
            same = Order(3)
            Unreliable(monkeypatch, [])
            summary = await bus.publish_many([Order(1), same, object(), same, Order(2)])
            assert (summary.accepted, summary.duplicates) == (4, 1)
            assert [position for position, _ in summary.failures] == [2]
            assert isinstance(summary.failures[0][1], CatgaError)

    run(law)


@pytest.mark.parametrize("kind", [Fast, Order])
def test_publish_many_accounts_for_each_message_whatever_the_transport_raises(
    monkeypatch: pytest.MonkeyPatch, kind: type[Fast | Order]
) -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus({"publish_deadline": 3}, consume=False, publishes=[Order])
        async with bus:
            # At QoS 0 the second chunk alone, and it is gone long before the last one leaves.
            Unreliable(monkeypatch, ["fine"] + ["raise"] * (1 if kind is Fast else 1000))
            publishing = asyncio.create_task(bus.publish_many(map(kind, range(1000))))
            await probe.pass_time(5)
            summary = await publishing
            assert 0 < len(summary.failures) < 1000
            assert {type(error) for _, error in summary.failures} == {PublishUnknown}
            assert summary.accepted + len(summary.failures) == 1000

    run(law)


def test_a_transport_that_does_not_answer_for_each_has_said_nothing_of_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reliable, calls = MemoryTransport.publish, list[int]()

    async def forgetful(
        transport: MemoryTransport, batch: Sequence[Outgoing]
    ) -> list[PublishResult]:
        calls.append(len(batch))
        return (await reliable(transport, batch))[len(calls) == 2 :]

    async def law(probe: Probe) -> None:
        monkeypatch.setattr(MemoryTransport, "publish", forgetful)
        bus = probe.bus({"publish_window": 256}, consume=False, publishes=[Once])
        async with bus:
            publishing = asyncio.create_task(bus.publish_many(map(Once, range(1000))))
            await probe.pass_time(5)
            summary = await publishing
            assert (summary.accepted, summary.duplicates) == (1000, calls[1])

    run(law)


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("script", [["slow"] * 1000, ["down"] * 1000])
def test_whoever_publishes_while_the_bus_closes_gets_an_answer(
    monkeypatch: pytest.MonkeyPatch, turns: int, script: list[str]
) -> None:
    """Or rather: nobody waits for one for ever. What is said to be stored is."""

    async def law(probe: Probe) -> None:
        Unreliable(monkeypatch, script)
        async with probe.bus(consume=False) as reader:
            bus = probe.bus({"publish_window": 100}, consume=False, publishes=[Order])
            async with bus:
                work = [asyncio.create_task(bus.publish(Order(n))) for n in range(300)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                await bus.close()
            await probe.pass_time(5)
            done = [task for task in work if task.done()]
            assert len(done) == len(work)
            assert not any(task.cancelled() for task in work)
            receipts = [task for task in work if task.exception() is None]
            assert len(receipts) <= len(stored(reader, "Order"))

    run(law)


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("script", [["slow"] * 1000, ["down"] * 1000])
def test_publish_many_while_the_bus_closes_accounts_for_each(
    monkeypatch: pytest.MonkeyPatch, turns: int, script: list[str]
) -> None:
    async def law(probe: Probe) -> None:
        Unreliable(monkeypatch, script)
        bus = probe.bus({"publish_window": 100}, consume=False, publishes=[Order])
        async with bus:
            publishing = asyncio.create_task(bus.publish_many(map(Order, range(1000))))
            for _ in range(turns):
                await asyncio.sleep(0)
            await bus.close()
        await probe.pass_time(5)
        assert publishing.done()
        assert not publishing.cancelled()
        if publishing.exception() is None:
            summary = publishing.result()
            assert summary.accepted + len(summary.failures) == 1000
        else:  # it had not begun
            assert isinstance(publishing.exception(), ConfigurationError)

    run(law)


def test_a_wait_for_handlers_that_breaks_off_is_told_and_the_message_is_published(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(transport: MemoryTransport, stored: object) -> None:
        raise TransportError("nobody can tell")

    async def law(probe: Probe) -> None:
        monkeypatch.setattr(MemoryTransport, "wait_handled", broken)
        bus = probe.bus({"wait_handled": True}, publishes=[Order])
        async with bus:
            assert (await bus.publish_many(map(Order, range(10)))).accepted == 10
            assert "nobody can tell" in caplog.text

    run(law)


def test_what_is_published_together_has_an_id_each_in_its_order_and_keeps_what_it_had() -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus(consume=False, publishes=[Order])
        async with bus:
            orders = [Order(number) for number in range(1000)]
            known = orders[500].message_id
            assert (await bus.publish_many(orders)).accepted == 1000
            ids = [order.message_id for order in orders]
            assert ids.pop(500) == known
            assert len({known, *ids}) == 1000
            assert all(a < b for a, b in pairwise(ids[1:250])), "as they were read, in one chunk"
            summary = await bus.publish_many(orders)
            assert summary.duplicates == 1000, "the same objects are the same messages"

    run(law)


def test_publish_many_reads_its_input_only_as_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def law(probe: Probe) -> None:
        read = 0

        def messages() -> Iterator[Order]:
            nonlocal read
            for number in range(1000):
                read += 1
                yield Order(number)

        Unreliable(monkeypatch, ["down"] * 30)
        bus = probe.bus({"publish_window": 40}, consume=False, publishes=[Order])
        async with bus:
            publishing = asyncio.create_task(bus.publish_many(messages()))
            await eventually(lambda: read >= 40)
            await asyncio.sleep(0)
            assert read <= 60
            await probe.pass_time(30)
            assert (await publishing).accepted == 1000

    run(law)


@pytest.mark.parametrize("word", ["down", "lost"])
def test_a_request_that_cannot_be_stored_waits_no_longer_than_it_was_told(
    monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    async def law(probe: Probe) -> None:
        Unreliable(monkeypatch, [word] * 1000)
        async with probe.bus(consume=False) as bus:
            asking = asyncio.create_task(bus.request(Asked(1), to="nobody", timeout=3))
            await probe.pass_time(2)
            assert not asking.done()
            await probe.pass_time(2)
            assert asking.done()
            with pytest.raises(RequestTimeout, match="did not even say"):
                await asking

    run(law)


def test_a_response_counts_also_when_it_is_not_known_whether_the_request_was_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus({"publish_deadline": 60})

        @bus.handle(Asked)
        async def answer(request: Asked) -> int:
            return request.number

        async with bus:
            Unreliable(monkeypatch, ["lost", "fine"] + ["lost"] * 1000)
            asking = asyncio.create_task(bus.request(Asked(7), timeout=30))
            await probe.pass_time(2)
            assert asking.done()
            assert await asking == 7

    run(law)


def test_in_memory_publish_waits_until_the_handlers_are_done() -> None:
    async def law(probe: Probe) -> None:
        seen: list[str] = []
        bus = probe.bus({"wait_handled": None})

        @bus.handle(Order)
        async def slow(order: Order) -> None:
            await probe.clock.sleep(5)
            seen.append("slow")

        @bus.handle(Order, group="other")
        async def failing(order: Order) -> None:
            seen.append("failing")
            raise ValueError("its own business")

        async with bus:
            publishing = asyncio.create_task(bus.publish(Order(1)))
            await probe.pass_time(1)
            assert not publishing.done()
            await probe.pass_time(14)
            assert isinstance(await publishing, Receipt), "a handler's error is not the publisher's"
            assert "slow" in seen

    run(law)


def test_a_publish_inside_a_handler_does_not_wait_for_its_handlers() -> None:
    async def law(probe: Probe) -> None:
        seen: list[int] = []
        bus = probe.bus({"wait_handled": True, "concurrency": 1})

        @bus.handle(Order)
        async def handle(order: Order) -> None:
            seen.append(order.number)
            if order.number < 3:
                await bus.publish(Order(order.number + 1))  # to this very worker

        async with bus:
            await bus.publish(Order(1))
            await eventually(lambda: seen == [1, 2, 3])

    run(law)


def test_the_quality_of_a_call_moves_within_what_its_listeners_can_keep() -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus(consume=False)
        async with bus:
            assert (await bus.publish(Order(1), qos=QualityOfService.EXACTLY_ONCE)).sequence
            assert not (await bus.publish(Order(1), qos=QualityOfService.AT_MOST_ONCE)).sequence
            with pytest.raises(ConfigurationError, match="declare the quality on the class"):
                await bus.publish(Fast(1), qos=QualityOfService.AT_LEAST_ONCE)

    run(law)


@pytest.mark.parametrize("word", ["", "a b", "a.b", "*", ">", "a\r\nb", "{x}", "x" * 65])
def test_a_destination_that_cannot_stand_in_a_subject_is_refused(word: str) -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus(consume=False)
        async with bus:
            with pytest.raises(ConfigurationError):
                await bus.send(Order(1), to=word)
            with pytest.raises(ConfigurationError):
                probe.bus(group=word)
            with pytest.raises(ConfigurationError):
                probe.bus(namespace=word)
            assert not broker_of(bus)._streams

    run(law)


@pytest.mark.parametrize(
    "headers",
    [{"a b": "x"}, {"": "x"}, {"Upper": "x"}, {"id": "x"}, {"x": "a\r\nb"}, {"x" * 21: ""}],
)
def test_a_header_that_cannot_travel_is_refused(headers: dict[str, str]) -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus(consume=False, publishes=[Order])
        async with bus:
            with pytest.raises(ConfigurationError):
                await bus.publish(Order(1), headers=headers)
            assert stored(bus, "Order") == []

    run(law)


def test_any_attrs_class_can_be_sent_and_gets_a_new_id_each_time() -> None:
    @attrs.frozen
    class Plain:
        number: int

    async def law(probe: Probe) -> None:
        bus = probe.bus(consume=False)
        async with bus:
            plain = Plain(1)
            first, second = await bus.publish(plain), await bus.publish(plain)
            assert first.message_id != second.message_id
            fixed = [await bus.publish(plain, message_id="mine") for _ in range(2)]
            assert [receipt.duplicate for receipt in fixed] == [False, True]
            with pytest.raises(ConfigurationError):
                await bus.publish(plain, message_id="has space")

    run(law)


def test_a_changed_copy_is_another_message() -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus(consume=False)
        async with bus:
            order = Order(1)
            first = await bus.publish(order)
            second = await bus.publish(attrs.evolve(order, number=2))
            assert first.message_id != second.message_id
            assert order == Order(1), "the identity takes no part in equality"

    run(law)


def test_a_class_without_attrs_is_refused_by_name() -> None:
    class NotAttrs(Event):
        pass

    async def law(probe: Probe) -> None:
        bus = probe.bus(consume=False)
        async with bus:
            with pytest.raises(ConfigurationError, match="NotAttrs"):
                await bus.publish(NotAttrs())

    run(law)
