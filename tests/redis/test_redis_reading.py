"""How a read divides the room there is, and what leaves with it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from redis_kit import NAMESPACE, admin, gather_deliveries, lab, out

from catga.spi import Ack, Commit, Completion, Done, Record, Settle, Source
from catga_redis.names import source_streams
from catga_redis.reading import asks
from catga_redis.testing import RedisServer


@st.composite
def _hungry(draw: st.DrawFn) -> Any:
    """What a read knows of one subscription."""
    source = Source(
        NAMESPACE,
        "Read",
        "workers",
        durable=True,
        ephemeral=draw(st.booleans()),
        window=draw(st.integers(1, 2000)),
    )
    streams = source_streams(source, "workers")
    return SimpleNamespace(
        source=source,
        streams=streams,
        room=draw(st.integers(1, source.window)),
        part=max(1, source.window // draw(st.integers(2, 3))),
        busy=draw(st.sets(st.sampled_from(streams))),
    )


@given(st.lists(_hungry(), min_size=1, max_size=4), st.integers(1, 2000))
def test_a_read_asks_each_stream_once_and_for_no_more_than_there_is_room(
    hungry: list[Any], most: int
) -> None:
    found = asks(hungry, most)
    asked = [(each, stream, ask.count) for ask in found for each, stream in ask.streams]
    assert all(0 < count <= most for _, _, count in asked)
    for one in hungry:
        counts = {stream: count for each, stream, count in asked if each is one}
        assert len(counts) == len(one.streams)
        assert sum(counts.values()) <= max(one.room, len(one.streams))
        part = min(one.room, one.part)
        if len(one.busy) == 1 and part <= most:  # nearly all of it for where more waits
            assert sum(counts[stream] for stream in one.busy) >= part * 3 // 4 - len(counts)
    assert len(asked) == sum(len(one.streams) for one in hungry)


def test_while_much_waits_a_read_and_what_is_settled_are_one_round_trip(
    own_server: RedisServer,
) -> None:
    """The settlement arrives on the connection of the reads, right before the next one."""

    async def law() -> None:
        async with lab(own_server) as bench, admin(own_server) as client:
            transport = await bench.transport()
            await transport.publish([out("Shared") for _ in range(400)])
            member = await bench.member(transport, "Shared", window=40)
            key = Completion(NAMESPACE, "workers", "Shared", "")
            async with client.monitor() as monitor:
                for number in range(6):
                    found = await gather_deliveries(member, 20)
                    if number % 2:
                        batch = [Commit(each, Record(key)) for each in found]
                        assert set(map(type, await member.commit(batch))) == {Done}
                    else:
                        await member.settle([Settle(each, Ack()) for each in found])
                await client.ping()
                reads, settled = set(), set()
                async with asyncio.timeout(10):
                    while True:
                        seen = await monitor.next_command()
                        word = seen["command"].split()[0]
                        if word == "XREADGROUP":
                            reads.add(seen["client_port"])
                        elif seen["client_type"] == "lua":
                            continue
                        elif word == "XACK" or ":done:" in seen["command"]:
                            settled.add((word[:4], seen["client_port"]))
                        elif word == "PING":
                            break
            (port,) = reads
            assert settled == {("XACK", port), ("EVAL", port)}

    asyncio.run(law())
