"""One connection: what it carries when its server is stuck, slow or not in charge any more."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from redis_kit import Lab, out, until

from catga.spi import Address, EventKind, Receipt, Unknown
from catga_redis.testing import RedisServer

MEGABYTE = b"x" * (1 << 20)


def test_what_a_stuck_server_never_read_does_not_mute_the_next_connection(
    binary: str | None, own_server: RedisServer
) -> None:
    """More waits to be written than the kernel takes, and it waits for ever."""

    async def law(other: RedisServer) -> None:
        hosts = (("127.0.0.1", own_server.port), ("127.0.0.1", other.port))
        bench = Lab(Address("redis", hosts))
        transport = await bench.transport(reply_timeout=timedelta(seconds=0.5))
        own_server.pause()
        results = await transport.publish([out("Stuck", MEGABYTE) for _ in range(32)])
        assert {type(each) for each in results} == {Unknown}
        await until(lambda: bench.events[-1].kind is EventKind.CONNECTED)
        (result,) = await transport.publish([out("Stuck")])
        assert isinstance(result, Receipt)
        await bench.close()

    with RedisServer(binary) as other:
        asyncio.run(law(other))
