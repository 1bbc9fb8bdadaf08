"""Laws of QoS 1 and 2 on Redis Streams, at the level of the transport."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from redis_kit import (
    NAMESPACE,
    accepted,
    admin,
    gather_deliveries,
    inbox_of,
    lab,
    nothing_more,
    out,
    topology,
    until,
)

from catga.errors import CapabilityError, ConfigurationError, PayloadTooLarge, PublishRejected
from catga.spi import (
    Ack,
    Commit,
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
    Settlement,
    Source,
    Start,
)
from catga_redis.testing import RedisServer


def test_a_receipt_names_the_stored_entry(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            messages = [out("Receipt", b"one"), out("Receipt", b"two", qos=2)]
            receipts = accepted(await transport.publish(messages))
            assert not any(each.duplicate for each in receipts)
            stored = await client.xrange("{law:Receipt}:log:0")
            assert stored is not None
            assert [each.sequence.encode() for each in receipts] == [id_ for id_, _ in stored]
            assert [fields for _, fields in stored] == [{b"b": b"one"}, {b"b": b"two"}]

    asyncio.run(law())


def test_one_id_is_stored_once_per_subject_at_qos_2(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            await transport.prepare(topology(publishes=("Once",)), Mode.CREATE)
            same = [out("Once", qos=2, message_id="m-1") for _ in range(3)]
            elsewhere = out("Once", qos=2, message_id="m-1", kind=Kind.TO, group="warehouse")
            results = await transport.publish([*same, elsewhere])
            first, second, third, other = accepted(results)
            assert [each.duplicate for each in (first, second, third)] == [False, True, True]
            assert first.sequence == second.sequence == third.sequence
            assert not other.duplicate
            assert accepted(await transport.publish([same[0]]))[0].duplicate
            assert await client.xlen("{law:Once}:log:0") == 1
            assert await client.xlen("{law:Once}:to:warehouse") == 1
            remaining = await client.pttl("{law:Once}:seen:log:0:m-1")
            assert 50_000 < remaining <= 60_000, "it outlives W, and no longer"

    asyncio.run(law())


def test_a_large_batch_is_stored_whole_and_in_order(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            transport = await bench.transport()
            member = await bench.member(transport, "Large", window=2000)
            bodies = [str(number).encode() for number in range(1000)]
            for qos, half in ((1, bodies[:500]), (2, bodies[500:])):
                results = await transport.publish([out("Large", body, qos=qos) for body in half])
                assert all(isinstance(each, Receipt) for each in results)
            found = await gather_deliveries(member, 1000)
            assert [each.body for each in found] == bodies
            assert {each.attempt for each in found} == {1}

    asyncio.run(law())


def test_published_before_the_groups_first_start_is_delivered(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            transport = await bench.transport()
            await transport.publish(
                [
                    out("Early", b"log"),
                    out("Early", b"to", kind=Kind.TO, group="workers"),
                    out("Early", b"redo", kind=Kind.REDO, group="workers"),
                ]
            )
            member = await bench.member(transport, "Early")
            found = await gather_deliveries(member, 3)
            assert {each.body for each in found} == {b"log", b"to", b"redo"}
            assert {each.subject.kind.value.encode() for each in found} == {
                each.body for each in found
            }

    asyncio.run(law())


def test_a_group_may_start_with_what_is_new(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            transport = await bench.transport()
            await transport.publish([out("New", b"old")])
            member = await bench.member(transport, "New", start=Start.NEW)
            await transport.publish([out("New", b"new")])
            assert [each.body for each in await gather_deliveries(member, 1)] == [b"new"]
            again = Source(NAMESPACE, "New", "workers", durable=True, start=Start.BEGINNING)
            await transport.prepare(topology(again), Mode.CREATE)  # its position is kept
            assert await nothing_more(member)

    asyncio.run(law())


def test_groups_are_independent_and_members_share(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            one, two = await bench.transport(), await bench.transport()
            first = await bench.member(one, "Shared", window=10)
            second = await bench.member(two, "Shared", window=10)
            other = await bench.member(two, "Shared", "audit", window=100)
            await one.publish([out("Shared", str(number).encode()) for number in range(20)])
            found = await gather_deliveries(first, 10) + await gather_deliveries(second, 10)
            assert len({each.body for each in found}) == 20
            assert len(await gather_deliveries(other, 20)) == 20

    asyncio.run(law())


def test_a_nack_delays_at_least_as_asked_and_counts_one_attempt(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            transport = await bench.transport()
            member = await bench.member(transport, "Nack")
            await transport.publish([out("Nack")])
            for attempt in (1, 2, 3):
                (delivery,) = await gather_deliveries(member, 1)
                assert delivery.attempt == attempt
                began = time.monotonic()
                assert await member.settle([Settle(delivery, Nack(0.25))]) == [Done()]
                assert await member.receive(1, 0.1) == []
            (delivery,) = await gather_deliveries(member, 1)
            assert time.monotonic() - began >= 0.25
            assert delivery.attempt == 4
            assert await member.settle([Settle(delivery, Reject("parked"))]) == [Done()]
            assert await nothing_more(member)

    asyncio.run(law())


def test_a_delay_longer_than_the_lease_is_kept(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            transport = await bench.transport(reclaim_interval=timedelta(seconds=0.05))
            member = await bench.member(transport, "LongDelay", lease=0.2)
            await transport.publish([out("LongDelay")])
            (delivery,) = await gather_deliveries(member, 1)
            began = time.monotonic()
            await member.settle([Settle(delivery, Nack(1.0))])
            (again,) = await gather_deliveries(member, 1)
            assert time.monotonic() - began >= 1.0
            assert again.attempt == 2

    asyncio.run(law())


def test_a_nack_without_delay_is_taken_by_another_member(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            one, two = await bench.transport(), await bench.transport()
            first = await bench.member(one, "Hand")
            await one.publish([out("Hand")])
            (delivery,) = await gather_deliveries(first, 1)
            second = await bench.member(two, "Hand")
            assert await first.settle([Settle(delivery, Nack())]) == [Done()]
            await first.close()
            (taken,) = await gather_deliveries(second, 1, 5.0)
            assert taken.attempt in {2, 3}, "the first may have had it again before it closed"

    asyncio.run(law())


def test_a_second_settlement_is_lost(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            transport = await bench.transport()
            member = await bench.member(transport, "Twice")
            await transport.publish([out("Twice", str(number).encode()) for number in range(4)])
            found = await gather_deliveries(member, 4)
            outcomes: list[Settlement] = [Ack(), Nack(30.0), Reject("x"), Ack()]
            first = [Settle(each, how) for each, how in zip(found, outcomes, strict=True)]
            assert await member.settle(first) == [Done()] * 4
            again = [Settle(each, how) for each in found for how in (Ack(), Nack(), Reject("y"))]
            assert await member.settle(again) == [Lost()] * 12
            assert await member.extend(found) == [Lost()] * 4
            record = Completion(NAMESPACE, "workers", "Twice", "x")
            assert await member.commit([Commit(found[0], Record(record))]) == [Lost()]

    asyncio.run(law())


def test_a_dead_members_lease_is_taken_over_and_its_late_settlement_is_lost(
    server: RedisServer,
) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            quick = timedelta(seconds=0.1)
            one, two = [await bench.transport(reclaim_interval=quick) for _ in range(2)]
            first = await bench.member(one, "Take", lease=0.6)
            await one.publish([out("Take", str(number).encode()) for number in range(3)])
            held = await gather_deliveries(first, 3)
            await first.drain()  # it takes nothing more, and keeps what it has: as if it hung
            second = await bench.member(two, "Take", lease=0.6)
            taken = await gather_deliveries(second, 3)
            assert {each.attempt for each in taken} == {2}
            late = [Settle(held[0], Ack()), Settle(held[1], Nack())]
            assert await first.settle(late) == [Lost(), Lost()]
            assert await first.extend([held[2]]) == [Lost()], "an extension steals nothing back"
            record = Completion(NAMESPACE, "workers", "Take", "t-1")
            assert await first.commit([Commit(held[2], Record(record))]) == [Lost()]
            assert await inbox_of(one).completed([record]) == [False]
            assert await second.settle([Settle(each, Ack()) for each in taken]) == [Done()] * 3

    asyncio.run(law())


def test_what_waits_for_a_slow_reader_does_not_use_up_attempts(server: RedisServer) -> None:
    """Prefetched deliveries expired behind a slow handler, each time as one more attempt."""

    async def law() -> None:
        async with lab(server) as bench:
            transport = await bench.transport()
            slow = await bench.member(transport, "Slow", lease=0.6)
            await transport.publish([out("Slow", b"%d" % number) for number in range(5)])
            (first,) = await gather_deliveries(slow, 1)
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                assert await slow.extend([first]) == [Done()]
                await asyncio.sleep(0.05)
            rest = await gather_deliveries(slow, 4)
            assert {each.attempt for each in rest} == {1}
            assert await slow.settle([Settle(each, Ack()) for each in (first, *rest)])

    asyncio.run(law())


def test_an_extended_lease_is_kept(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            quick = timedelta(seconds=0.05)
            one, two = [await bench.transport(reclaim_interval=quick) for _ in range(2)]
            first = await bench.member(one, "Extend", lease=0.5)
            await one.publish([out("Extend")])
            (held,) = await gather_deliveries(first, 1)
            second = await bench.member(two, "Extend", lease=0.5)
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                before = held.lease_until
                assert await first.extend([held]) == [Done()]
                assert held.lease_until > before
                assert await second.receive(1, 0.1) == []
            assert await first.settle([Settle(held, Ack(), confirm=True)]) == [Done()]

    asyncio.run(law())


def test_a_commit_records_and_acknowledges_in_one_step(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            member = await bench.member(transport, "Commit")
            await transport.publish([out("Commit", str(number).encode()) for number in range(300)])
            found = await gather_deliveries(member, 300)
            batch = [
                Commit(each, Record(Completion(NAMESPACE, "workers", "Commit", f"c-{number}")))
                for number, each in enumerate(found)
            ]
            assert await member.commit(batch) == [Done()] * 300
            keys = [each.record.key for each in batch]
            assert await inbox_of(transport).completed(keys) == [True] * 300
            assert (await client.xpending("{law:Commit}:log:0", "workers"))["pending"] == 0
            assert 110_000 < await client.pttl("{law:Commit}:done:workers:c-0") <= 120_000

    asyncio.run(law())


def test_a_commit_of_what_was_recorded_before_is_done(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            member = await bench.member(transport, "Recorded")
            record = Completion(NAMESPACE, "workers", "Recorded", "r-1")
            assert await inbox_of(transport).record([Record(record)]) == [Done()]
            await transport.publish([out("Recorded")])
            (found,) = await gather_deliveries(member, 1)
            assert await member.commit([Commit(found, Record(record))]) == [Done()]
            assert (await client.xpending("{law:Recorded}:log:0", "workers"))["pending"] == 0

    asyncio.run(law())


def test_an_ephemeral_group_sees_what_is_new_and_leaves_nothing(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            await transport.publish([out("Brief", b"old")])
            source = Source(NAMESPACE, "Brief", durable=True, ephemeral=True)
            await transport.prepare(topology(source), Mode.CREATE)
            one, two = await transport.subscribe(source), await transport.subscribe(source)
            await transport.publish([out("Brief", b"new")])
            for each in (one, two):
                (found,) = await gather_deliveries(each, 1)
                assert found.body == b"new"
                await each.settle([Settle(found, Nack(30.0))])
                await each.close()
            await transport.close()
            assert await client.xinfo_groups("{law:Brief}:log:0") == []
            keys = await client.keys("{law:Brief}*")
            assert sorted(keys) == [b"{law:Brief}:log:0"]

    asyncio.run(law())


def test_what_strangers_store_is_delivered_and_blocks_nobody(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            member = await bench.member(transport, "Odd")
            key = "{law:Odd}:log:0"
            await client.xadd(key, {"other": "field"})
            await client.xadd(key, {"b": b"\xff\x00\xfe", "extra": b"\xff"})
            await client.xadd(key, {"b": b""})
            await transport.publish([out("Odd", b"good")])
            found = await gather_deliveries(member, 4)
            assert [each.body for each in found] == [b"", b"\xff\x00\xfe", b"", b"good"]
            assert [each.headers for each in found] == [
                {"other": "field"},
                {"extra": "\\xff"},
                None,
                None,
            ]
            assert await member.settle([Settle(each, Reject("odd")) for each in found]) == (
                [Done()] * 4
            )

    asyncio.run(law())


def test_an_entry_deleted_while_pending_is_dropped_and_said(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            member = await bench.member(transport, "Gone")
            await transport.publish([out("Gone", b"1"), out("Gone", b"2")])
            found = await gather_deliveries(member, 2)
            await client.xdel("{law:Gone}:log:0", found[0].sequence)
            await member.settle([Settle(each, Nack(0.05)) for each in found])
            (again,) = await gather_deliveries(member, 1)
            assert again.body == b"2"
            await until(lambda: any("trimmed" in each.detail for each in bench.events))
            await member.settle([Settle(again, Ack(), confirm=True)])
            assert (await client.xpending("{law:Gone}:log:0", "workers"))["pending"] == 0

    asyncio.run(law())


def test_drain_gives_back_at_once_what_was_not_received(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            one, two = await bench.transport(), await bench.transport()
            first = await bench.member(one, "Drain", lease=30.0)
            await one.publish([out("Drain", str(number).encode()) for number in range(50)])
            held = await gather_deliveries(first, 5)
            waiting = asyncio.create_task(first.receive(0, 30.0))
            await first.drain()
            assert await waiting == []
            assert await first.receive(10, 30.0) == []
            second = await bench.member(two, "Drain", lease=30.0)
            given = await gather_deliveries(second, 45, 5.0)
            assert {each.attempt for each in given} == {1}, "nobody had seen them"
            assert await first.settle([Settle(each, Ack()) for each in held]) == [Done()] * 5
            assert await nothing_more(second)

    asyncio.run(law())


def test_close_leaves_no_member_behind(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            member = await bench.member(transport, "Leave")
            await transport.publish([out("Leave", str(number).encode()) for number in range(3)])
            found = await gather_deliveries(member, 3)
            await member.settle([Settle(found[0], Ack())])
            await transport.close()
            await transport.close()
            members = await client.xinfo_consumers("{law:Leave}:log:0", "workers")
            assert [(each["name"], each["pending"]) for each in members] == [(b"nobody", 2)]
            other = await bench.transport()
            taken = await gather_deliveries(await bench.member(other, "Leave"), 2)
            assert {each.attempt for each in taken} == {2}
            assert client is not None
            clients = [each["name"] for each in await client.client_list()]
            assert sum("workers" in name for name in clients) == 1

    asyncio.run(law())


def test_the_window_bounds_what_is_handed_out(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            transport = await bench.transport()
            member = await bench.member(transport, "Window", window=6)
            await transport.publish([out("Window", str(number).encode()) for number in range(30)])
            found = await gather_deliveries(member, 6)
            assert await nothing_more(member)
            while len(found) < 30:
                await member.settle([Settle(each, Ack()) for each in found[-6:]])
                found += await gather_deliveries(member, 6)
            assert len({each.body for each in found}) == 30

    asyncio.run(law())


def test_a_body_over_the_limit_is_refused_before_it_is_sent(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            transport = await bench.transport(max_payload_bytes=1000)
            assert transport.max_payload_bytes == 1000
            for qos in (0, 1, 2):
                fits, over = await transport.publish(
                    [out("Fat", b"x" * 1000, qos=qos), out("Fat", b"x" * 1001, qos=qos)]
                )
                assert isinstance(fits, Receipt)
                assert isinstance(over, Rejected)
                assert isinstance(over.error, PayloadTooLarge)
                assert (over.error.size_bytes, over.error.limit_bytes) == (1001, 1000)

    asyncio.run(law())


def test_the_servers_own_limit_is_read(binary: str | None) -> None:
    with RedisServer(binary, options=("--proto-max-bulk-len", "1mb")) as own:

        async def law() -> None:
            async with lab(own) as bench:
                assert (await bench.transport()).max_payload_bytes == 1024 * 1024

        asyncio.run(law())


def test_one_refusal_does_not_touch_the_others_of_a_batch(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            await client.set("{law:Mixed}:to:broken", "not a stream")
            for qos in (1, 2):
                good, bad, good_too = await transport.publish(
                    [
                        out("Mixed", qos=qos),
                        out("Mixed", qos=qos, kind=Kind.TO, group="broken"),
                        out("Mixed", qos=qos),
                    ]
                )
                assert isinstance(good, Receipt)
                assert isinstance(good_too, Receipt)
                assert isinstance(bad, Rejected)
                assert isinstance(bad.error, PublishRejected)
                assert not bad.transient

    asyncio.run(law())


def test_max_length_is_applied_named_as_a_risk_and_agreed_on(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            asked = frozenset({"max_length"})
            short = topology(publishes=("Short",), qos=QualityOfService.AT_LEAST_ONCE)
            one = await bench.transport(asked, max_length=100)
            await one.prepare(short, Mode.CREATE)
            assert any(each.kind is EventKind.RISK for each in bench.events)
            with pytest.raises(CapabilityError, match=r"max_length=100.*accept_risk=.*max_length"):
                await one.prepare(topology(publishes=("Short",)), Mode.CREATE)
            silent = await bench.transport()
            await silent.prepare(topology(publishes=("Short",)), Mode.CREATE)
            for transport, qos in ((one, 1), (silent, 2)):
                await transport.publish([out("Short", qos=qos) for _ in range(500)])
                assert await client.xlen("{law:Short}:log:0") < 300
            other = await bench.transport(asked, max_length=200)
            late = Source(NAMESPACE, "Short", "late", durable=True)
            before = sorted(await client.keys("*"))
            with pytest.raises(ConfigurationError, match=r"max_length=200.*100.*Short"):
                await other.prepare(
                    topology(late, qos=QualityOfService.AT_LEAST_ONCE, publishes=("Another",)),
                    Mode.CREATE,
                )
            assert await client.smembers("{law:Short}:groups") == set(), "it was refused"
            assert set(await client.keys("*")) - {*before} <= {b"{law:Another}:meta"}

    asyncio.run(law())


def test_verify_names_the_group_that_is_missing(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            source = Source(NAMESPACE, "Verify", "workers", durable=True)
            with pytest.raises(ConfigurationError, match=r"workers.*Verify"):
                await transport.prepare(topology(source), Mode.VERIFY)
            assert await client.exists("{law:Verify}:log:0") == 0, "verifying makes nothing"
            await transport.prepare(topology(source), Mode.CREATE)
            await transport.prepare(topology(source), Mode.VERIFY)
            assert b"Verify" in await client.smembers("{law}:types")

    asyncio.run(law())


def test_dead_letters_are_parked_once(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport(max_length=1)
            letter = out("Dead", b"letter", qos=2, message_id="d", kind=Kind.DEAD, group="workers")
            first, again = [accepted(await transport.publish([letter]))[0] for _ in range(2)]
            assert (first.duplicate, again.duplicate) == (False, True)
            assert await client.xlen("{law:Dead}:dead:workers") == 1
            assert letter.qos is QualityOfService.EXACTLY_ONCE

    asyncio.run(law())
