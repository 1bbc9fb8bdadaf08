"""A lease is as long as the server knows, not as long as somebody here believes."""

from __future__ import annotations

import asyncio
import time

from nats_kit import collect, opened

from catga.spi import Done, Unknown
from catga.testing import FaultProxy
from catga_nats.testing import NatsServer


def test_a_lease_whose_renewal_the_server_never_heard_of_is_over_when_another_has_the_message(
    server: NatsServer,
) -> None:
    async def law() -> None:
        async with (
            FaultProxy(server.port) as proxy,
            opened(f"nats://127.0.0.1:{proxy.port}") as here,
            opened(server.url, here.namespace) as there,
        ):
            source = here.source(lease=1.5)
            member = await here.subscribe(source)
            await here.transport.publish([here.outgoing()])
            (held,) = await collect(member, 1)
            assert await member.extend([held]) == [Done()]
            await member.drain()  # it keeps what it has
            heir = await there.subscribe(source)
            proxy.black_hole(down=False)
            (result,) = await member.extend([held])
            assert isinstance(result, Unknown)
            taking = asyncio.create_task(collect(heir, 1))
            while not taking.done():
                assert await member.extend([held]) != [Done()]
                await asyncio.sleep(0)
            assert held.lease_until <= time.monotonic()
            assert (await taking)[0].attempt == 2

    asyncio.run(law())


def test_many_leases_are_renewed_together(server: NatsServer) -> None:
    async def law() -> None:
        async with (
            FaultProxy(server.port) as proxy,
            opened(f"nats://127.0.0.1:{proxy.port}") as here,
        ):
            member = await here.subscribe(here.source())
            await here.transport.publish([here.outgoing() for _ in range(400)])
            held = await collect(member, 400)
            before = max(each.lease_until for each in held)
            writes, start = proxy.counts.client_writes, time.monotonic()
            assert await member.extend(held) == [Done()] * 400
            assert proxy.counts.client_writes - writes < 20, "not one by one"
            until = {each.lease_until for each in held}
            assert before < min(until) <= max(until) <= start + member.lease + 0.1

    asyncio.run(law())
