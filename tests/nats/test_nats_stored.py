"""Laws of QoS 1 and 2 on JetStream, at the level of the transport."""

from __future__ import annotations

import asyncio
import time

import attrs
import msgspec
import pytest
from nats_kit import address_of, collect, fresh_namespace, nothing_comes, opened, until

from catga.errors import ConnectionLost, PayloadTooLarge, PublishRejected
from catga.spi import (
    Ack,
    Completion,
    Done,
    EventKind,
    Kind,
    Lost,
    Mode,
    Nack,
    QualityOfService,
    Receipt,
    Record,
    Reject,
    Rejected,
    Settle,
    Start,
    Unknown,
)
from catga_nats.testing import NatsServer


def test_what_was_published_before_the_groups_first_start_is_delivered(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            await here.prepare()
            (receipt,) = await here.transport.publish([here.outgoing(b"early", "id-1")])
            assert isinstance(receipt, Receipt)
            assert receipt.sequence
            assert not receipt.duplicate
            subscription = await here.subscribe(here.source())
            (delivery,) = await collect(subscription, 1)
            assert (delivery.body, delivery.attempt) == (b"early", 1)
            assert delivery.sequence == receipt.sequence
            assert delivery.subject == here.outgoing().subject

    asyncio.run(law())


def test_a_group_that_starts_with_new_messages_sees_no_older_ones(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            await here.prepare()
            await here.transport.publish([here.outgoing(b"old")])
            subscription = await here.subscribe(here.source(start=Start.NEW))
            await here.transport.publish([here.outgoing(b"new")])
            (delivery,) = await collect(subscription, 1)
            assert delivery.body == b"new"
            await nothing_comes(subscription)

    asyncio.run(law())


def test_one_id_is_stored_once_per_subject(server: NatsServer) -> None:
    """The window spans the whole stream; a bare id would swallow the second group's copy."""

    async def law() -> None:
        async with opened(server.url) as here:
            await here.prepare()
            batch = [
                here.outgoing(b"a", "same"),
                here.outgoing(b"b", "same", Kind.TO, "one"),
                here.outgoing(b"c", "same", Kind.TO, "two"),
                here.outgoing(b"a", "same"),
            ]
            results = await here.transport.publish(batch)
            receipts = [result for result in results if isinstance(result, Receipt)]
            assert [receipt.duplicate for receipt in receipts] == [False, False, False, True]
            assert receipts[3].sequence == receipts[0].sequence
            subscription = await here.subscribe(here.source("one"))
            bodies = {delivery.body for delivery in await collect(subscription, 2)}
            assert bodies == {b"a", b"b"}
            await nothing_comes(subscription)

    asyncio.run(law())


def test_a_retry_for_one_group_reaches_only_that_group(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            one = await here.subscribe(here.source("one"))
            two = await here.subscribe(here.source("two"))
            await here.transport.publish([here.outgoing(b"again", None, Kind.REDO, "one")])
            assert (await collect(one, 1))[0].subject.kind is Kind.REDO
            await nothing_comes(two)

    asyncio.run(law())


def test_groups_are_independent_and_members_of_one_group_share(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            alone = await here.subscribe(here.source("one"))
            members = [await here.subscribe(here.source("two", window=10)) for _ in range(2)]
            bodies = {b"%d" % number for number in range(100)}
            await here.transport.publish([here.outgoing(body) for body in bodies])
            assert {each.body for each in await collect(alone, 100)} == bodies
            seen: list[bytes] = []
            shares = [0, 0]
            while len(seen) < 100:
                for place, member in enumerate(members):
                    got = await member.receive(10, 0.2)
                    shares[place] += len(got)
                    seen += [each.body for each in got]
                    await member.settle([Settle(each, Ack()) for each in got])
            assert sorted(seen) == sorted(bodies)
            assert all(shares)

    asyncio.run(law())


def test_a_nack_delivers_again_not_before_its_delay_as_the_next_attempt(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            subscription = await here.subscribe(here.source())
            await here.transport.publish([here.outgoing()])
            (first,) = await collect(subscription, 1)
            start = time.monotonic()
            assert await subscription.settle([Settle(first, Nack(0.4))]) == [Done()]
            (second,) = await collect(subscription, 1)
            assert time.monotonic() - start >= 0.4
            assert second.attempt == 2
            assert await subscription.settle([Settle(second, Nack())]) == [Done()]
            (third,) = await collect(subscription, 1)
            assert third.attempt == 3

    asyncio.run(law())


def test_what_is_given_back_for_centuries_does_not_come_at_once(server: NatsServer) -> None:
    """More nanoseconds than the server can count were no delay at all."""

    async def law() -> None:
        async with opened(server.url) as here:
            subscription = await here.subscribe(here.source())
            await here.transport.publish([here.outgoing()])
            (delivery,) = await collect(subscription, 1)
            await subscription.settle([Settle(delivery, Nack(1e10), confirm=True)])
            await nothing_comes(subscription)

    asyncio.run(law())


@pytest.mark.parametrize("confirm", [False, True])
@pytest.mark.parametrize("outcome", [Ack(), Reject("no\r\nuse"), Nack(30.0)], ids=repr)
def test_a_second_settlement_is_lost(
    server: NatsServer, outcome: Ack | Reject | Nack, confirm: bool
) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            subscription = await here.subscribe(here.source(lease=0.5))
            await here.transport.publish([here.outgoing()])
            (delivery,) = await collect(subscription, 1)
            settle = Settle(delivery, outcome, confirm)
            assert await subscription.settle([settle, settle]) == [Done(), Lost()]
            assert await subscription.settle([settle]) == [Lost()]
            assert await subscription.extend([delivery]) == [Lost()]
            await nothing_comes(subscription, 0.8)

    asyncio.run(law())


def test_a_member_that_dies_is_taken_over_after_its_lease(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            dead = await here.subscribe(here.source(lease=0.5))
            await here.transport.publish([here.outgoing()])
            (held,) = await collect(dead, 1)
            start = time.monotonic()
            async with opened(server.url, here.namespace) as there:
                heir = await there.subscribe(here.source(lease=0.5))
                await dead.drain()
                (taken,) = await collect(heir, 1)
                assert 0.3 < time.monotonic() - start < 5
                assert taken.attempt == 2
                late = [Settle(held, Ack()), Settle(held, Nack(), confirm=True)]
                assert await dead.settle(late) == [Lost(), Lost()]
                assert await dead.extend([held]) == [Lost()]
                assert await heir.settle([Settle(taken, Ack(), confirm=True)]) == [Done()]

    asyncio.run(law())


def test_a_lease_ends_here_before_the_server_gives_the_message_away(server: NatsServer) -> None:
    """The server counts from its hand-over, which was a while ago when the message is read."""

    async def law() -> None:
        async with opened(server.url) as here:
            subscription = await here.subscribe(here.source(lease=20.0))
            await here.transport.publish([here.outgoing()])
            (held,) = await collect(subscription, 1)
            assert held.lease_until <= time.monotonic() + 19.0

    asyncio.run(law())


def test_extending_keeps_the_lease(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            source = here.source(lease=0.6)
            owner = await here.subscribe(source)
            await here.transport.publish([here.outgoing()])
            (held,) = await collect(owner, 1)
            async with opened(server.url, here.namespace) as there:
                other = await there.subscribe(source)
                for _ in range(6):
                    await nothing_comes(other, 0.25)
                    before = held.lease_until
                    assert await owner.extend([held]) == [Done()]
                    assert held.lease_until > before
                assert await owner.settle([Settle(held, Ack(), confirm=True)]) == [Done()]
                await nothing_comes(other, 0.8)

    asyncio.run(law())


def test_what_waits_for_a_slow_reader_does_not_use_up_attempts(server: NatsServer) -> None:
    """Prefetched deliveries expired behind a slow handler, each time as one more attempt."""

    async def law() -> None:
        async with opened(server.url) as here:
            slow = await here.subscribe(here.source(lease=1.5))
            await here.transport.publish([here.outgoing(b"%d" % n) for n in range(5)])
            (first,) = await slow.receive(1, 5)
            start = time.monotonic()

            async def passed() -> bool:
                await slow.extend([first])
                return time.monotonic() - start > 3.5

            await until(passed)
            rest = await collect(slow, 4)
            assert {each.attempt for each in rest} == {1}
            await nothing_comes(slow)

    asyncio.run(law())


def test_the_window_bounds_what_is_handed_out(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            subscription = await here.subscribe(here.source(window=4))
            await here.transport.publish([here.outgoing() for _ in range(10)])
            first = await collect(subscription, 4)
            await nothing_comes(subscription)
            await subscription.settle([Settle(each, Ack()) for each in first])
            second = await collect(subscription, 4)
            assert {int(each.sequence) for each in first + second} == set(
                range(int(first[0].sequence), int(first[0].sequence) + 8)
            )

    asyncio.run(law())


def test_drain_gives_back_at_once_and_lets_settle_what_was_received(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here, opened(server.url, here.namespace) as there:
            leaving = await here.subscribe(here.source())
            await here.transport.publish([here.outgoing(b"%d" % n) for n in range(50)])
            mine = await leaving.receive(3, 5)
            await leaving.drain()
            staying = await there.subscribe(here.source())
            start = time.monotonic()
            theirs = await collect(staying, 50 - len(mine))
            assert time.monotonic() - start < 5
            assert not {each.body for each in mine} & {each.body for each in theirs}
            acks = [Settle(each, Ack(), confirm=True) for each in mine]
            assert await leaving.settle(acks) == [Done()] * len(mine)
            assert await leaving.receive(10, 5) == []

    asyncio.run(law())


def test_drain_wakes_a_reader_that_waits(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            for source in (here.source(), here.source(durable=False)):
                subscription = await here.subscribe(source)
                waiting = asyncio.create_task(subscription.receive(1, 60))
                await asyncio.sleep(0)
                await subscription.drain()
                assert await asyncio.wait_for(waiting, 5) == []

    asyncio.run(law())


def test_an_ephemeral_group_sees_what_is_new_and_leaves_nothing(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            await here.prepare()
            await here.transport.publish([here.outgoing(b"old")])
            source = here.source("probe", ephemeral=True)
            listeners = [await here.subscribe(source) for _ in range(2)]
            await here.transport.publish([here.outgoing(b"new")])
            for listener in listeners:
                assert [each.body for each in await collect(listener, 1)] == [b"new"]
                await listener.close()
            left = await here.ask(f"CONSUMER.NAMES.{here.namespace}-log")
            # Without schedules of its own the server has a consumer for what is delayed.
            assert set(left["consumers"] or ()) <= {"later"}

    asyncio.run(law())


def test_a_body_over_the_limit_is_refused_and_nothing_is_sent(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            subscription = await here.subscribe(here.source())
            limit = here.transport.max_payload_bytes
            assert limit
            batch = [
                here.outgoing(b"x" * limit),  # fits without its header
                here.outgoing(b"x" * (limit + 1), kind=Kind.LIVE),
                here.outgoing(b"x" * (limit - 300)),
                here.outgoing(b"x" * limit, kind=Kind.LIVE),
            ]
            big, live_big, fits, live_fits = await here.transport.publish(batch)
            for refused in (big, live_big):
                assert isinstance(refused, Rejected)
                assert isinstance(refused.error, PayloadTooLarge)
                assert refused.error.size_bytes > refused.error.limit_bytes == limit
                assert not refused.transient
            assert isinstance(fits, Receipt)
            assert isinstance(live_fits, Receipt)
            (delivery,) = await collect(subscription, 1)
            assert len(delivery.body) == limit - 300
            assert here.told(EventKind.DISCONNECTED) == []

    asyncio.run(law())


def test_no_stream_is_a_transient_refusal(server: NatsServer) -> None:
    """A leader change answers with the same words as a missing stream."""

    async def law() -> None:
        async with opened(server.url) as here:
            (result,) = await here.transport.publish([here.outgoing()])
            assert isinstance(result, Rejected)
            assert isinstance(result.error, PublishRejected)
            assert result.transient

    asyncio.run(law())


def test_a_full_stream_refuses_and_keeps_what_it_accepted(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url, max_bytes=20_000) as here:
            subscription = await here.subscribe(here.source())
            batch = [here.outgoing(b"x" * 4_000) for _ in range(10)]
            results = await here.transport.publish(batch)
            accepted = [result for result in results if isinstance(result, Receipt)]
            refused = [result for result in results if isinstance(result, Rejected)]
            assert accepted
            assert refused
            assert not any(each.transient for each in refused)
            got = await collect(subscription, len(accepted))
            assert [each.sequence for each in got] == [each.sequence for each in accepted]

    asyncio.run(law())


def test_completion_records_are_shared_by_the_members_of_one_group(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here, opened(server.url, here.namespace) as there:
            for each in (here, there):
                await each.prepare(here.source(), qos=QualityOfService.EXACTLY_ONCE)
            ids = ["plain", "with.dots", "*", ">", "a/b=c", "Ω".encode().hex(), "x" * 128]
            keys = [Completion(here.namespace, "one", "Order", each) for each in ids]
            inbox, other = here.transport.inbox, there.transport.inbox
            assert inbox is not None
            assert other is not None
            assert await other.completed(keys) == [False] * len(keys)
            records = [Record(key) for key in keys[1:]]
            assert await inbox.record(records) == [Done()] * len(records)
            assert await inbox.record([Record(keys[1])]) == [Done()]
            assert await other.completed(keys) == [False] + [True] * (len(keys) - 1)
            change = msgspec.structs.replace
            elsewhere = [change(keys[1], group="two"), change(keys[1], type="Other")]
            assert await other.completed(elsewhere) == [False, False]

    asyncio.run(law())


def test_of_many_completions_looked_up_at_once_each_is_told(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            await here.prepare(here.source(), qos=QualityOfService.EXACTLY_ONCE)
            keys = [Completion(here.namespace, "one", "Order", f"id-{n}") for n in range(1300)]
            inbox = here.transport.inbox
            assert inbox is not None
            records = [Record(key, b"%d" % n) for n, key in enumerate(keys) if n % 3]
            assert await inbox.record(records) == [Done()] * len(records)
            assert await inbox.completed(keys) == [n % 3 > 0 for n in range(1300)]
            assert await inbox.responses(keys) == [
                b"%d" % n if n % 3 else None for n in range(1300)
            ]

    asyncio.run(law())


@pytest.mark.parametrize("count", [5, 6, 7, 11])
def test_responses_that_no_one_answer_can_hold_are_told_all_the_same(
    server: NatsServer, count: int
) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            await here.prepare(here.source(), qos=QualityOfService.EXACTLY_ONCE)
            keys = [Completion(here.namespace, "one", "Order", f"id-{n}") for n in range(count)]
            inbox = here.transport.inbox
            assert inbox is not None
            bodies = [b"%d" % n * 900_000 for n in range(count)]
            records = [Record(key, body[:900_000]) for key, body in zip(keys, bodies, strict=True)]
            assert await inbox.record(records) == [Done()] * count
            assert await inbox.completed(keys) == [True] * count
            assert await inbox.responses(keys) == [body[:900_000] for body in bodies]

    asyncio.run(law())


def test_server_killed_and_started_again_loses_nothing_accepted(binary: str | None) -> None:
    async def law(server: NatsServer) -> None:
        async with opened(server.url) as here:
            subscription = await here.subscribe(here.source(lease=2.0))
            accepted: set[bytes] = set()
            handled: set[bytes] = set()
            stop, stopped = asyncio.Event(), asyncio.Event()

            async def produce() -> None:
                number = 0
                while not stop.is_set():
                    batch = [here.outgoing(b"%d" % (number + n)) for n in range(64)]
                    number += 64
                    for sent, result in zip(
                        batch, await here.transport.publish(batch), strict=True
                    ):
                        if isinstance(result, Receipt):
                            accepted.add(sent.body)
                    await asyncio.sleep(0.001)
                stopped.set()

            async def consume() -> None:
                while not (stopped.is_set() and accepted <= handled):
                    got = await subscription.receive(100, 0.2)
                    results = await subscription.settle([Settle(each, Ack()) for each in got])
                    handled.update(
                        each.body
                        for each, result in zip(got, results, strict=True)
                        if result == Done()
                    )

            async with asyncio.timeout(40), asyncio.TaskGroup() as group:
                group.create_task(produce())
                group.create_task(consume())
                for _ in range(2):
                    before = len(accepted)
                    await until(lambda: len(accepted) > before + 500)  # noqa: B023
                    server.kill()
                    await asyncio.to_thread(server.start)
                before = len(accepted)
                await until(lambda: len(accepted) > before + 500)
                stop.set()
            assert accepted <= handled
            assert len(here.told(EventKind.DISCONNECTED)) == 2
            assert len(here.told(EventKind.CONNECTED)) == 3

    with NatsServer(binary) as server:
        asyncio.run(law(server))


def test_ids_are_still_known_after_a_restart(binary: str | None) -> None:
    async def law(server: NatsServer) -> None:
        async with opened(server.url) as here:
            await here.prepare()
            await here.transport.publish([here.outgoing(b"once", "id")])
            server.kill()
            await asyncio.to_thread(server.start)

            async def duplicate() -> bool:
                (result,) = await here.transport.publish([here.outgoing(b"once", "id")])
                return isinstance(result, Receipt) and result.duplicate

            await until(duplicate)

    with NatsServer(binary) as server:
        asyncio.run(law(server))


def test_without_a_connection_publishing_is_refused_and_nothing_is_sent_later(
    binary: str | None,
) -> None:
    async def law(server: NatsServer) -> None:
        async with opened(server.url) as here:
            live = await here.subscribe(here.source(durable=False, group=""))
            await here.prepare()
            server.kill()
            await until(lambda: bool(here.told(EventKind.DISCONNECTED)))
            batch = [here.outgoing(b"kept?", kind=Kind.LIVE), here.outgoing(b"kept?")]
            for result in await here.transport.publish(batch):
                assert isinstance(result, Rejected)
                assert isinstance(result.error, ConnectionLost)
                assert result.transient
            assert not (await here.transport.health()).ok
            await asyncio.to_thread(server.start)
            await until(lambda: len(here.told(EventKind.CONNECTED)) == 2)
            assert here.told(EventKind.GAP)
            await here.transport.publish([here.outgoing(b"after", kind=Kind.LIVE)])
            assert [each.body for each in await collect(live, 1)] == [b"after"]
            stored = await here.subscribe(here.source())
            await nothing_comes(stored)
            assert (await here.transport.health()).ok

    with NatsServer(binary) as server:
        asyncio.run(law(server))


def test_a_lost_connection_ends_the_wait_for_confirmations_at_once(binary: str | None) -> None:
    async def law(server: NatsServer) -> None:
        async with opened(server.url) as here:
            await here.prepare()
            server.pause()
            publishing = asyncio.create_task(here.transport.publish([here.outgoing()]))
            await asyncio.sleep(0)
            start = time.monotonic()
            server.kill()
            (result,) = await publishing
            assert isinstance(result, Unknown)
            assert time.monotonic() - start < 2

    with NatsServer(binary) as server:
        asyncio.run(law(server))


def test_a_deleted_consumer_is_told_to_the_reader(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            subscription = await here.subscribe(here.source())
            await here.transport.publish([here.outgoing()])
            await collect(subscription, 1)
            await here.ask(f"CONSUMER.DELETE.{here.namespace}-log.billing=Order")
            with pytest.raises(Exception, match="billing=Order") as caught:
                await collect(subscription, 1)
            assert type(caught.value).__name__ == "SubscriptionClosed"
            assert not (await here.transport.health()).ok

    asyncio.run(law())


def test_many_buses_may_prepare_the_same_at_once(server: NatsServer) -> None:
    async def law() -> None:
        namespace = fresh_namespace()

        async def one(number: int) -> int:
            async with opened(address_of(server.url), namespace) as here:
                sources = [here.source(type=f"Type{each}", lease=30.0) for each in range(58)]
                attempts = 5 + number  # each wants another limit of deliveries
                sources = [attrs.evolve(each, attempts=attempts) for each in sources]
                start = time.monotonic()
                await here.prepare(*sources, qos=QualityOfService.EXACTLY_ONCE)
                await here.prepare(*sources, mode=Mode.VERIFY)
                return time.monotonic() - start < 10

        assert all(await asyncio.gather(*(one(number) for number in range(4))))

    asyncio.run(law())
