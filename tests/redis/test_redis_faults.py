"""What survives what: killed, stopped and restarted servers, cut connections, lost replies."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

import pytest
from redis_kit import (
    Lab,
    address_of,
    admin,
    gather_deliveries,
    inbox_of,
    lab,
    out,
    until,
)

from catga.errors import SubscriptionClosed
from catga.spi import (
    Ack,
    Commit,
    Completion,
    Delivery,
    Done,
    EventKind,
    Lost,
    Nack,
    Outgoing,
    Receipt,
    Record,
    Rejected,
    Settle,
    SettleResult,
    Subscription,
    Unknown,
)
from catga_redis.errors import ReplyLost
from catga_redis.testing import RedisServer
from catga_redis.transport import RedisTransport


async def publish_through(transport: RedisTransport, outgoing: Outgoing) -> Receipt:
    """Repeat until there is a receipt, as the bus does."""
    async with asyncio.timeout(20):
        while True:
            (result,) = await transport.publish([outgoing])
            if isinstance(result, Receipt):
                return result
            assert isinstance(result, Unknown) or result.transient, result
            await asyncio.sleep(0.02)


async def drink(subscription: Subscription, seen: dict[bytes, int]) -> None:
    """Receive and acknowledge for ever."""
    while True:
        found: list[Delivery] = await subscription.receive(100, 0.5)
        for each in found:
            seen[each.body] = seen.get(each.body, 0) + 1
        if found:
            await subscription.settle([Settle(each, Ack()) for each in found])


@pytest.mark.parametrize("qos", [1, 2])
def test_nothing_accepted_is_lost_over_sigkill_and_restart(
    own_server: RedisServer, qos: int
) -> None:
    async def law() -> None:
        async with lab(own_server) as bench:
            quick = timedelta(seconds=0.1)
            publisher, consumer = [await bench.transport(reclaim_interval=quick) for _ in range(2)]
            member = await bench.member(consumer, "Crash", lease=1.0)
            seen: dict[bytes, int] = {}
            drinking = asyncio.create_task(drink(member, seen))
            accepted = 0

            async def publish_all() -> None:
                nonlocal accepted
                for number in range(400):
                    await publish_through(publisher, out("Crash", str(number).encode(), qos=qos))
                    accepted += 1

            publishing = asyncio.create_task(publish_all())
            for at in (100, 250):
                await until(lambda at=at: accepted >= at, 30.0)
                own_server.kill()
                await asyncio.to_thread(own_server.start)
            await publishing
            await until(lambda: len(seen) == 400, 30.0)
            drinking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await drinking
            if qos == 2:
                async with admin(own_server) as client:
                    assert await client.xlen("{law:Crash}:log:0") == 400, "0 extra"

    asyncio.run(law())


def test_a_lost_reply_is_unknown_and_its_repeat_stores_nothing_new(
    own_server: RedisServer,
) -> None:
    async def law() -> None:
        async with lab(own_server) as bench, admin(own_server) as client:
            transport = await bench.transport(reply_timeout=timedelta(seconds=0.5))
            messages = [out("Reply", qos=qos, message_id=f"m-{qos}") for qos in (1, 2)]
            await transport.publish(
                [out("Other", qos=2)]
            )  # from now on the server knows the script
            own_server.pause()
            results = await transport.publish(messages)
            own_server.resume()
            for each in results:
                assert isinstance(each, Unknown)
                assert isinstance(each.error, ReplyLost)

            async def stored() -> bool:
                return await client.xlen("{law:Reply}:log:0") == 2

            await until(stored)
            assert (await publish_through(transport, messages[1])).duplicate
            assert await client.xlen("{law:Reply}:log:0") == 2

    asyncio.run(law())


def test_nothing_is_written_on_a_socket_that_has_gone(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench:
            transport = await bench.transport()
            await transport.publish([out("Gone")])
            assert transport._session is not None
            line: Any = transport._session.line(b"{law:Gone}:log:0")
            # As when the other side resets it: known to the loop, not yet to the client.
            line._connection._writer.transport.abort()
            (result,) = await transport.publish([out("Gone")])
            assert isinstance(result, Rejected), "surely not stored"
            assert result.transient
            await publish_through(transport, out("Gone"))

    asyncio.run(law())


@pytest.mark.parametrize("how", ["commit", "acknowledge"])
def test_a_settlement_whose_reply_was_lost_may_be_asked_for_again(
    own_server: RedisServer, how: str
) -> None:
    async def law() -> None:
        async with lab(own_server) as bench, admin(own_server) as client:
            transport = await bench.transport(reply_timeout=timedelta(seconds=0.5))
            member = await bench.member(transport, "Again", lease=30.0)
            await transport.publish([out("Again"), out("Again")])
            found = await gather_deliveries(member, 2)
            records = [Completion("law", "workers", "Again", str(n)) for n in range(2)]
            # From now on the server knows the script.
            await member.commit([Commit(found[0], Record(records[0]))])

            async def settle() -> SettleResult:
                if how == "commit":
                    return (await member.commit([Commit(found[1], Record(records[1]))]))[0]
                return (await member.settle([Settle(found[1], Ack(), confirm=True)]))[0]

            own_server.pause()
            first = await settle()
            own_server.resume()
            assert isinstance(first, Unknown)
            answers: list[SettleResult] = []

            async def answered() -> bool:
                answers.append(await settle())
                return not isinstance(answers[-1], Unknown)

            await until(answered)
            assert answers[-1] == Done()
            assert await settle() == Lost()
            assert (await client.xpending("{law:Again}:log:0", "workers"))["pending"] == 0
            if how == "commit":
                assert await inbox_of(transport).completed(records) == [True, True]

    asyncio.run(law())


def test_a_killed_connection_in_mid_work_loses_nothing(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport(reclaim_interval=timedelta(seconds=0.1))
            member = await bench.member(transport, "Kill", lease=1.0, window=50)
            seen: dict[bytes, int] = {}
            drinking = asyncio.create_task(drink(member, seen))
            for number in range(500):
                await publish_through(transport, out("Kill", str(number).encode(), qos=2))
                if number % 100 == 50:
                    mine = [
                        each["id"]
                        for each in await client.client_list()
                        if each["name"].startswith("lab:")
                    ]
                    for id_ in mine:
                        await client.client_kill_filter(_id=id_)
            await until(lambda: len(seen) == 500, 20.0)

            async def settled() -> bool:
                pending = await client.xpending("{law:Kill}:log:0", "workers")
                return bool(pending["pending"] == 0)

            # While it drinks: what had its acknowledgement lost comes again after its lease.
            await until(settled, 20.0)
            drinking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await drinking
            assert (await transport.health()).ok
            kinds = {each.kind for each in bench.events}
            assert {EventKind.DISCONNECTED, EventKind.CONNECTED} <= kinds

    asyncio.run(law())


def test_a_removed_stream_is_made_again_and_said(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            member = await bench.member(transport, "Removed")
            await client.delete("{law:Removed}:log:0")
            await client.xgroup_destroy("{law:Removed}:to:workers", "workers")
            await until(lambda: any("was made again" in each.detail for each in bench.events))
            await transport.publish([out("Removed", b"after")])
            (found,) = await gather_deliveries(member, 1)
            assert found.body == b"after"
            assert await member.settle([Settle(found, Ack(), confirm=True)]) == [Done()]

    asyncio.run(law())


def test_a_refusal_of_one_stream_loses_nothing_that_another_brought(server: RedisServer) -> None:
    """While much waits in one stream, one round trip asks for it and for the others apart."""

    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            await transport.publish([out("Apart") for _ in range(200)])
            member = await bench.member(transport, "Apart", window=60)
            # Until the window is full: then it is known that more waits.
            found = await gather_deliveries(member, 60)
            await client.xadd("{law:Apart}:to:workers", {"b": "beside"})
            await client.xgroup_destroy("{law:Apart}:log:0", "workers")
            while all(each.body != b"beside" for each in found):
                await member.settle([Settle(each, Ack()) for each in found])
                found = await member.receive(60, 10.0)
                assert found
            await until(lambda: any("was made again" in each.detail for each in bench.events))

    asyncio.run(law())


def test_a_key_that_is_no_stream_closes_only_its_own_subscription(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            broken = await bench.member(transport, "Broken")
            fine = await bench.member(transport, "Fine")
            await client.set("{law:Broken}:log:0", "not a stream")
            with pytest.raises(SubscriptionClosed, match="WRONGTYPE"):
                await broken.receive(1, 10.0)
            await transport.publish([out("Fine")])
            assert len(await gather_deliveries(fine, 1)) == 1

    asyncio.run(law())


def test_members_that_died_long_ago_are_forgotten_unless_something_is_pending(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            key = "{law:Forget}:log:0"
            await client.xgroup_create(key, "workers", "0", mkstream=True)
            await client.xadd(key, {"b": b"1"})
            await client.xgroup_createconsumer(key, "workers", "dead")
            await client.xreadgroup("workers", "dead-with-work", {key: ">"})
            monkeypatch.setattr("catga_redis.groups.ABANDONED_MS", -1)
            await bench.member(transport, "Forget")

            async def names() -> set[bytes]:
                return {each["name"] for each in await client.xinfo_consumers(key, "workers")}

            assert b"dead" not in await names()
            assert b"dead-with-work" in await names()

    asyncio.run(law())


def test_a_full_server_refuses_and_what_is_stored_stays(own_server: RedisServer) -> None:
    async def law() -> None:
        async with lab(own_server) as bench, admin(own_server) as client:
            transport = await bench.transport()
            member = await bench.member(transport, "Full")
            await transport.publish([out("Full", b"kept")])
            await client.config_set("maxmemory", 1)
            for qos in (1, 2):
                (result,) = await transport.publish([out("Full", qos=qos)])
                assert isinstance(result, Rejected)
                assert result.transient, "room can come back"
            (found,) = await gather_deliveries(member, 1)
            assert await member.settle([Settle(found, Ack(), confirm=True)]) == [Done()]
            await client.config_set("maxmemory", 0)
            assert isinstance((await transport.publish([out("Full", qos=2)]))[0], Receipt)

    asyncio.run(law())


def test_a_server_that_forgot_the_scripts_is_told_again(server: RedisServer) -> None:
    async def law() -> None:
        async with lab(server) as bench, admin(server) as client:
            transport = await bench.transport()
            member = await bench.member(transport, "Script")
            await client.script_flush()
            await transport.publish([out("Script", qos=2)])
            (found,) = await gather_deliveries(member, 1)
            await client.script_flush()
            assert await member.settle([Settle(found, Nack())]) == [Done()]
            (again,) = await gather_deliveries(member, 1)
            assert again.attempt == 2

    asyncio.run(law())


def test_a_settlement_while_disconnected_is_unknown_and_close_ends(
    own_server: RedisServer,
) -> None:
    async def law() -> None:
        bench = Lab(address_of(own_server))
        transport = await bench.transport()
        member = await bench.member(transport, "Down")
        await transport.publish([out("Down", str(number).encode()) for number in range(3)])
        found = await gather_deliveries(member, 3)
        own_server.kill()
        await until(lambda: any(each.kind is EventKind.DISCONNECTED for each in bench.events))
        work = [Settle(found[0], Ack()), Settle(found[1], Nack())]
        assert all(isinstance(each, Unknown) for each in await member.settle(work))
        assert isinstance((await member.extend(found[2:]))[0], Unknown)
        async with asyncio.timeout(5):
            await bench.close()

    asyncio.run(law())
