"""The commands of a handler's own: all of them with the record, or none, whatever stands there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis_kit import NAMESPACE, Lab, admin, gather_deliveries, inbox_of, lab, out, until

from catga import Bus, Context, Event, QualityOfService
from catga.errors import ConfigurationError
from catga.ground.ids import new_instance
from catga.spi import (
    Address,
    Command,
    Commit,
    Completion,
    Delivery,
    Done,
    EffectKey,
    Effects,
    Record,
    Refused,
    SettleResult,
    Subscription,
    Unknown,
)
from catga.testing import FaultProxy
from catga_redis import committing
from catga_redis.commands import Plan
from catga_redis.scripts import Script
from catga_redis.testing import RedisServer
from catga_redis.transport import RedisTransport

TAG = "{law:Own}"
KEYS = [f"{name}:{TAG}".encode() for name in "abc"]
PRIOR: list[tuple[Any, ...]] = [
    ("SET", b"7"),
    ("SET", b"word"),
    ("SET", b"007"),
    ("SET", b"9007199254740990"),
    ("HSET", b"f", b"1", b"g", b"word"),
    ("RPUSH", b"1"),
    ("SADD", b"1"),
    ("ZADD", b"1", b"m"),
    ("XADD", b"*", b"f", b"1"),
]
AFTER: list[tuple[bytes, ...]] = [
    (b"SET", b"1"),
    (b"INCR",),
    (b"decrby", b"9"),
    (b"INCRBY", b"-9007199254740991"),
    (b"HSET", b"f", b"2"),
    (b"HDEL", b"g"),
    (b"HINCRBY", b"f", b"3"),
    (b"HINCRBY", b"g", b"3"),
    (b"RPUSH", b"1", b"2"),
    (b"SADD", b"2"),
    (b"ZADD", b"1.5", b"m", b"-2", b"n"),
    (b"ZINCRBY", b"2", b"m"),
    (b"EXPIRE", b"1000"),
    (b"PERSIST",),
    (b"DEL",),
]


@attrs.frozen
class Own(Event):
    qos = QualityOfService.EXACTLY_ONCE
    number: int


@asynccontextmanager
async def held(
    server: RedisServer,
) -> AsyncIterator[tuple[RedisTransport, Subscription, Delivery]]:
    """Yield a delivery in the hand of a member of a new group."""
    async with lab(server) as bench:
        transport = await bench.transport()
        member = await bench.member(transport, "Own", f"g-{new_instance()}")
        await transport.publish([out("Own")])
        yield transport, member, (await gather_deliveries(member, 1))[0]


async def raw(client: Redis, *words: Any) -> None:
    run: Any = client.execute_command
    await run(*words)


async def commit(
    member: Subscription, delivery: Delivery, id_: str, commands: Sequence[Command]
) -> SettleResult:
    record = Record(Completion(NAMESPACE, "workers", "Own", id_))
    written = {EffectKey(NAMESPACE, "workers", "Own", id_): b"1"}
    effects = Effects({}, written, commands=commands)
    (result,) = await member.commit([Commit(delivery, record, effects)])
    return result


async def state(client: Redis, keys: Sequence[bytes]) -> list[Any]:
    """What stands under each key, apart from when it expires and the ids of a stream."""
    found: list[Any] = []
    for key in keys:
        kind = await client.type(key)
        read = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"list": lambda k: client.lrange(k, 0, -1),
            b"set": client.smembers,
            b"zset": lambda k: client.zrange(k, 0, -1, withscores=True),
            b"stream": client.xlen,
        }
        found.append((kind, await read[kind](key) if kind in read else None))
    return found


async def all_or_nothing(
    server: RedisServer, prior: Sequence[int], after: Sequence[tuple[int, int]]
) -> bool:
    """Commit commands on keys that hold something; say whether they were taken."""
    commands = [(AFTER[which][0], KEYS[key], *AFTER[which][1:]) for which, key in after]
    twins = [b"twin-" + key for key in KEYS]
    async with held(server) as (transport, member, delivery), admin(server) as client:
        await client.delete(*KEYS, *twins)
        for place, which in enumerate(prior):
            if which < len(PRIOR):
                for key in (KEYS[place], twins[place]):
                    await raw(client, PRIOR[which][0], key, *PRIOR[which][1:])
        before, id_ = await state(client, KEYS), new_instance()
        result = await commit(member, delivery, id_, commands)
        now = await state(client, KEYS)
        recorded = await inbox_of(transport).completed(
            [Completion(NAMESPACE, "workers", "Own", id_)]
        )
        effect = await client.get(f"{TAG}:tx:workers:{id_}")
        if isinstance(result, Refused):
            assert (now, recorded, effect) == (before, [False], None)
            assert await commit(member, delivery, id_, []) == Done(), "it can be tried again"
            return False
        assert (result, recorded, effect) == (Done(), [True], b"1")
        for name, key, *rest in commands:
            await raw(client, name.decode(), b"twin-" + key, *rest)
        assert now == await state(client, twins)
        return True


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    prior=st.lists(st.integers(0, len(PRIOR)), min_size=3, max_size=3),
    after=st.lists(
        st.tuples(st.integers(0, len(AFTER) - 1), st.integers(0, 2)), min_size=1, max_size=4
    ),
)
def test_the_commands_of_a_commit_are_all_run_or_none(
    server: RedisServer, prior: list[int], after: list[tuple[int, int]]
) -> None:
    asyncio.run(all_or_nothing(server, prior, after))


PLANTED = [
    pytest.param([len(PRIOR)] * 3, [(8, 0), (4, 1)], True, id="what fits"),
    pytest.param([len(PRIOR), 5, len(PRIOR)], [(8, 0), (4, 1)], False, id="another type behind"),
    pytest.param([len(PRIOR), 1, len(PRIOR)], [(9, 0), (1, 1)], False, id="no integer behind"),
    pytest.param([len(PRIOR), 2, len(PRIOR)], [(9, 0), (1, 1)], False, id="leading zeros behind"),
    pytest.param([len(PRIOR), 3, len(PRIOR)], [(1, 1)] * 3, False, id="too much in the end"),
    pytest.param([len(PRIOR), 4, len(PRIOR)], [(9, 0), (7, 1)], False, id="no integer in a field"),
]


@pytest.mark.parametrize(("prior", "after", "taken"), PLANTED)
def test_what_stands_in_the_way_is_seen_before_anything_is_written(
    server: RedisServer, prior: list[int], after: list[tuple[int, int]], taken: bool
) -> None:
    assert asyncio.run(all_or_nothing(server, prior, after)) is taken


def test_a_script_that_looks_at_nothing_is_caught(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two laws above can fail: without its looks the script commits a half."""
    source = committing.COMMIT_EFFECTS.source
    blind = source.replace(b"local found = kind ~= '' and wrong(key, kind)", b"local found = false")
    assert blind != source
    monkeypatch.setattr(committing, "COMMIT_EFFECTS", Script(blind))
    with pytest.raises(AssertionError):
        asyncio.run(all_or_nothing(server, [len(PRIOR), 5, len(PRIOR)], [(8, 0), (4, 1)]))


def test_a_user_without_the_right_to_a_command_writes_nothing(own_server: RedisServer) -> None:
    async def law() -> None:
        async with (
            held(own_server) as (_, member, delivery),
            admin(own_server) as client,
        ):
            commands = [(b"SADD", KEYS[0], b"1"), (b"INCR", KEYS[1])]
            await raw(client, "ACL", "SETUSER", "default", "-incr")
            result = await commit(member, delivery, "m-1", commands)
            assert isinstance(result, Refused)
            assert "INCR" in str(result.error)
            assert await client.exists(*KEYS) == 0
            await raw(client, "ACL", "SETUSER", "default", "+incr")
            assert await commit(member, delivery, "m-1", commands) == Done()
            assert await client.exists(*KEYS) == 2

    asyncio.run(law())


def test_a_commit_whose_answer_was_lost_ran_its_commands_once(server: RedisServer) -> None:
    async def law() -> None:
        type_ = f"Cut{new_instance()}"
        key = f"sum:{{{NAMESPACE}:{type_}}}"
        async with FaultProxy(server.port) as proxy, admin(server) as client:
            bench = Lab(Address("redis", (("127.0.0.1", proxy.port),)))
            try:
                transport = await bench.transport()
                member = await bench.member(transport, type_, lease=60.0)
                await transport.publish([out(type_), out(type_)])
                effects = Effects({}, {}, commands=[(b"INCRBY", key.encode(), b"5")])
                one, two = [
                    Commit(each, Record(Completion(NAMESPACE, "workers", type_, name)), effects)
                    for each, name in zip(
                        await gather_deliveries(member, 2), ("first", "second"), strict=True
                    )
                ]
                assert await member.commit([one]) == [Done()]
                lost = proxy.lose_reply(b":done:workers:second")
                (result,) = await member.commit([two])
                assert lost.is_set()
                assert isinstance(result, Unknown)
                assert await client.get(key) == b"10", "it was carried out"
                while isinstance(result, Unknown):
                    await asyncio.sleep(0.02)
                    (result,) = await member.commit([two])
                assert result == Done()
                assert await client.get(key) == b"10"
            finally:
                await bench.close()

    asyncio.run(law())


def test_a_server_without_room_writes_nothing(own_server: RedisServer) -> None:
    async def law() -> None:
        async with (
            held(own_server) as (_, member, delivery),
            admin(own_server) as client,
        ):
            commands = [(b"SADD", KEYS[0], b"1"), (b"INCR", KEYS[1])]
            await client.config_set("maxmemory", 1)
            assert isinstance(await commit(member, delivery, "m-1", commands), Unknown)
            await client.config_set("maxmemory", 0)
            assert await client.exists(*KEYS) == 0
            assert await commit(member, delivery, "m-1", commands) == Done()
            assert await client.exists(*KEYS) == 2

    asyncio.run(law())


@pytest.mark.parametrize(
    ("commands", "words"),
    [
        ([(b"FLUSHALL", KEYS[0])], "cannot be part of a commit"),
        ([(b"GET", KEYS[0])], "cannot be part of a commit"),
        ([(b"INCR",)], "a name, a key"),
        ([(b"INCR", b"balance")], "another slot"),
        ([(b"INCR", b"balance:{law:Other}")], "another slot"),
        ([(b"DEL", f"{TAG}:log:0".encode())], "Catga's own"),
        ([(b"INCRBY", KEYS[0], b"1.5")], "not an integer"),
        ([(b"INCRBY", KEYS[0], b"9007199254740992")], "not an integer"),
        ([(b"INCRBY", KEYS[0], b"-0")], "not an integer"),
        ([(b"INCRBY", KEYS[0])], "wrong number of words"),
        ([(b"HSET", KEYS[0], b"f")], "wrong number of words"),
        ([(b"SET", KEYS[0], b"1", b"NX")], "wrong number of words"),
        ([(b"ZADD", KEYS[0], b"nan", b"m")], "finite"),
        ([(b"ZADD", KEYS[0], b"NX", b"m")], "finite"),
        ([(b"EXPIRE", KEYS[0], b"0")], "lives for"),
        ([(b"SET", KEYS[0], b"x"), (b"INCR", KEYS[0])], "set and counted"),
        ([(b"HINCRBY", KEYS[0], b"f", b"1"), (b"HSET", KEYS[0], b"f", b"x")], "set and counted"),
        ([(b"SADD", KEYS[0], b"x"), (b"RPUSH", KEYS[0], b"x")], "a set and a list"),
    ],
)
def test_what_might_fail_or_is_out_of_reach_is_refused(commands: list[Command], words: str) -> None:
    plan = Plan(NAMESPACE, "Own")
    for command in commands[:-1]:
        plan.add(command)
    with pytest.raises(ConfigurationError, match=words):
        plan.add(commands[-1])
    assert len(plan.commands) == len(commands) - 1


def test_a_handler_counts_each_message_once(server: RedisServer) -> None:
    """Over failing attempts and a second copy; what it may not do fails it, with the reason."""

    async def law() -> None:
        namespace = f"own-{new_instance()}"
        bus = Bus(
            server.url,
            service="own",
            namespace=namespace,
            settings={"attempts": 2, "backoff_base": 0.01, "backoff_cap": 0.01},
        )

        @bus.handle(Own)
        async def count(own: Own, context: Context) -> None:
            tx = context.transaction
            tx.command("HINCRBY", tx.key("totals"), "sum", own.number)
            tx.command("SADD", tx.key("seen"), own.number)
            if own.number == 3:
                tx.command("INCR", tx.key("wall"))
            if context.attempt == 1 and own.number != 3:
                raise ValueError("after the commands were said")

        async with bus, admin(server) as client:
            wall = f"wall:{{{namespace}:Own}}"
            await client.lpush(wall, "no counter")
            for number in (1, 2, 3):
                await bus.publish(Own(number))

            def ended() -> bool:
                books = bus.counts()["own/Own"]
                return books.get("ack", 0) == 2 and books.get("dead-letter", 0) == 1

            await until(ended)
            assert await client.hgetall(f"totals:{{{namespace}:Own}}") == {b"sum": b"3"}
            assert await client.smembers(f"seen:{{{namespace}:Own}}") == {b"1", b"2"}
            (letter,) = [letter async for letter in bus.dead_letters.find()]
            assert "holds a list, not a string" in str(letter)
            await bus.transport.remove(namespace)
            await client.delete(wall)

    asyncio.run(law())
