"""Laws of what leaves the straight way: parked in one step, delayed, carried on, trimmed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from redis_kit import (
    accepted,
    admin,
    gather_deliveries,
    lab,
    nothing_more,
    out,
    topology,
    until,
)

from catga.errors import CapabilityError
from catga.spi import (
    Ack,
    Done,
    Kind,
    Lost,
    Mode,
    Nack,
    Outgoing,
    Rejected,
    Settle,
    SettleResult,
    Unknown,
)
from catga_redis.testing import RedisServer

QUICK = timedelta(seconds=0.05)


def letter_of(type_: str, id_: str = "letter") -> Outgoing:
    return out(type_, b"why", qos=2, message_id=id_, kind=Kind.DEAD, group="workers")


def in_seconds(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def test_a_letter_is_parked_and_its_original_settled_in_one_step(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            member = await bench.member(transport, "Parked")
            await transport.publish([out("Parked", str(n).encode()) for n in range(300)])
            found = await gather_deliveries(member, 300)
            pairs = [(each, letter_of("Parked", each.sequence)) for each in found]
            assert await member.park(pairs) == [Done()] * 300
            assert await client.xlen("{law:Parked}:dead:workers") == 300
            assert (await client.xpending("{law:Parked}:log:0", "workers"))["pending"] == 0
            assert await member.park(pairs[:1]) == [Lost()], "a second settlement has no effect"
            assert await client.xlen("{law:Parked}:dead:workers") == 300

    asyncio.run(law())


def test_a_letter_that_is_there_is_not_stored_again_and_its_original_is_settled(
    server: RedisServer,
) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            member = await bench.member(transport, "Known")
            await transport.publish([out("Known")])
            (found,) = await gather_deliveries(member, 1)
            letter = letter_of("Known")
            accepted(await transport.publish([letter]))
            assert await member.park([(found, letter)]) == [Done()]
            assert await client.xlen("{law:Known}:dead:workers") == 1
            assert (await client.xpending("{law:Known}:log:0", "workers"))["pending"] == 0

    asyncio.run(law())


def test_who_lost_the_lease_parks_nothing(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            member = await bench.member(transport, "Late")
            await transport.publish([out("Late")])
            (found,) = await gather_deliveries(member, 1)
            await client.xclaim("{law:Late}:log:0", "workers", "other", 0, [found.sequence])
            assert await member.park([(found, letter_of("Late"))]) == [Lost()]
            assert await client.xlen("{law:Late}:dead:workers") == 0
            assert (await client.xpending("{law:Late}:log:0", "workers"))["pending"] == 1

    asyncio.run(law())


def test_a_parking_whose_reply_was_lost_may_be_asked_for_again(own_server: RedisServer) -> None:
    async def law() -> None:
        async with lab(own_server) as bench, admin(own_server) as client:
            transport = await bench.transport(reply_timeout=timedelta(seconds=0.5))
            member = await bench.member(transport, "Again", lease=60.0)
            await transport.publish([out("Again"), out("Again")])
            found = await gather_deliveries(member, 2)
            assert await member.park([(found[0], letter_of("Again", "first"))]) == [Done()]
            pair = (found[1], letter_of("Again", "second"))
            own_server.pause()
            (result,) = await member.park([pair])
            own_server.resume()
            assert isinstance(result, Unknown)
            answers: list[SettleResult] = [result]

            async def answered() -> bool:
                answers.append((await member.park([pair]))[0])
                return not isinstance(answers[-1], Unknown)

            await until(answered)
            assert answers[-1] == Done()
            assert await client.xlen("{law:Again}:dead:workers") == 2
            assert (await client.xpending("{law:Again}:log:0", "workers"))["pending"] == 0

    asyncio.run(law())


def test_a_letter_the_server_refuses_leaves_its_original_unsettled(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            member = await bench.member(transport, "Full")
            await transport.publish([out("Full")])
            (found,) = await gather_deliveries(member, 1)
            await client.set("{law:Full}:dead:workers", "not a stream")
            (result,) = await member.park([(found, letter_of("Full"))])
            assert isinstance(result, Unknown)
            assert "WRONGTYPE" in str(result.error)
            assert (await client.xpending("{law:Full}:log:0", "workers"))["pending"] == 1
            await client.delete("{law:Full}:dead:workers")
            assert await member.park([(found, letter_of("Full"))]) == [Done()]

    asyncio.run(law())


@pytest.mark.parametrize("qos", [1, 2])
def test_carried_attempts_go_on_counting_and_are_no_headers(server: RedisServer, qos: int) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            transport = await bench.transport(reclaim_interval=QUICK)
            type_ = f"Carried{qos}"
            member = await bench.member(transport, type_)
            plain = out(type_, b"x", qos=qos, kind=Kind.REDO, group="workers")
            accepted(await transport.publish([replace(plain, attempts=3, replays=2)]))
            for attempt in (4, 5):
                (found,) = await gather_deliveries(member, 1)
                assert (found.attempt, found.replays, found.headers) == (attempt, 2, None)
                assert await member.settle([Settle(found, Nack())]) == [Done()]
            (found,) = await gather_deliveries(member, 1)
            assert await member.settle([Settle(found, Ack(), confirm=True)]) == [Done()]

    asyncio.run(law())


def test_a_count_that_is_none_is_a_strangers_field(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            member = await bench.member(transport, "Count")
            for wrong in ("-1", "many", "9" * 30):
                await client.xadd("{law:Count}:log:0", {"b": b"x", "catga-attempts": wrong})
            found = await gather_deliveries(member, 3)
            assert [each.attempt for each in found] == [1, 1, 1]
            assert [(each.headers or {})["catga-attempts"] for each in found] == [
                "-1",
                "many",
                "9" * 30,
            ]

    asyncio.run(law())


@pytest.mark.parametrize("qos", [1, 2])
def test_a_delayed_message_comes_whole_and_not_before_its_time(
    server: RedisServer, qos: int
) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport(reclaim_interval=QUICK)
            type_ = f"Delayed{qos}"
            member = await bench.member(transport, type_)
            due = in_seconds(1.0)
            later = replace(
                out(type_, b"later", qos=qos, message_id="m"),
                not_before=due,
                attempts=2,
                replays=1,
            )
            (receipt,) = accepted(await transport.publish([later]))
            assert receipt.sequence
            assert not receipt.duplicate
            again = accepted(await transport.publish([later]))[0] if qos == 2 else None
            assert again is None or again.duplicate
            stored = await client.xlen(f"{{law:{type_}}}:log:0")
            assert stored == 0 or datetime.now(UTC) >= due
            (found,) = await gather_deliveries(member, 1)
            assert datetime.now(UTC) >= due
            assert (found.body, found.attempt, found.replays) == (b"later", 3, 1)
            assert await nothing_more(member)
            assert not await client.exists(f"{{law:{type_}}}:later:log:0")
            assert not await client.exists(f"{{law:{type_}}}:later:log:0:bodies")

    asyncio.run(law())


def test_what_is_due_waits_for_the_first_that_reads_and_survives_a_crash(
    own_server: RedisServer,
) -> None:
    async def law() -> None:
        async with lab(own_server) as bench:
            transport = await bench.transport(reclaim_interval=QUICK)
            soon = in_seconds(0.2)
            later = [
                replace(out("Wait", str(n).encode(), qos=1 + n % 2), not_before=soon)
                for n in range(600)
            ]
            accepted(await transport.publish(later))
            sent = out("Wait", b"to", kind=Kind.TO, group="workers")
            sent = replace(sent, not_before=soon)
            accepted(await transport.publish([sent]))
            own_server.kill()
            own_server.start()
            reader = await bench.transport(reclaim_interval=QUICK)
            member = await bench.member(reader, "Wait", window=2000)
            found = await gather_deliveries(member, 601)
            assert {each.body for each in found} == {each.body for each in [*later, sent]}
            assert await nothing_more(member)

    asyncio.run(law())


def test_what_is_due_by_now_does_not_wait(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            past = datetime(1960, 1, 1, tzinfo=UTC)
            for qos in (1, 2):
                accepted(await transport.publish([replace(out("Past", qos=qos), not_before=past)]))
            assert await client.xlen("{law:Past}:log:0") == 2

    asyncio.run(law())


def test_what_no_group_reads_is_not_delayed_but_refused(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            transport = await bench.transport()
            for each in (out("Never", qos=0), letter_of("Never")):
                late = replace(each, not_before=in_seconds(1))
                (result,) = await transport.publish([late])
                assert isinstance(result, Rejected)
                assert isinstance(result.error, CapabilityError)

    asyncio.run(law())


def test_max_length_never_reaches_dead_letters(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport(frozenset({"max_length"}), max_length=1)
            risk = frozenset({"max_length"})
            asked = topology(publishes=("Bounded",), accept_risk=risk)
            await transport.prepare(asked, Mode.CREATE)
            letters = [letter_of("Bounded", str(number)) for number in range(250)]
            accepted(await transport.publish([out("Bounded", qos=2), *letters]))
            assert await client.xlen("{law:Bounded}:dead:workers") == 250

    asyncio.run(law())
