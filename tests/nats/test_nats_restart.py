"""A killed server forgets what it handed out last: what was in hand is another's by then."""

from __future__ import annotations

import asyncio

import pytest
from nats_kit import collect, opened, until

from catga import Bus
from catga.spi import Ack, Done, EventKind, Settle
from catga.testing.contract.messages import Charged
from catga.testing.faults import FaultProxy
from catga_nats.testing import NatsServer


@pytest.mark.parametrize("restarts", [True, False])
def test_what_was_in_hand_is_doubtful_after_a_restart_and_not_after_a_cut(
    binary: str | None, *, restarts: bool
) -> None:
    async def law(server: NatsServer) -> None:
        proxy = await FaultProxy(server.port).start()
        try:
            async with opened(f"nats://127.0.0.1:{proxy.port}") as here:
                source = here.source(window=10, lease=30.0)
                member = await here.subscribe(source)
                await here.transport.publish([here.outgoing(b"%d" % each) for each in range(15)])
                held = await collect(member, 4)
                if restarts:
                    server.kill()
                    await asyncio.to_thread(server.start)
                else:
                    proxy.cut()
                await until(lambda: len(here.told(EventKind.CONNECTED)) == 2)
                more = await collect(member, 5)
                assert [each.doubtful for each in held] == [restarts] * 4
                assert not any(each.doubtful for each in more)
                batch = [Settle(each, Ack()) for each in (*held, *more)]
                assert await member.settle(batch) == [Done()] * 9  # one that runs may still
        finally:
            await proxy.close()

    with NatsServer(binary) as server:
        asyncio.run(law(server))


def test_a_run_that_the_server_has_forgotten_does_not_come_to_its_end_beside_another(
    binary: str | None,
) -> None:
    """Exactly once, windowed: what a handler does at its end is done by one of the two."""

    async def law(server: NatsServer) -> None:
        begun, stopped, effects = list[str](), list[str](), list[str]()
        goes_on = asyncio.Event()

        def member(name: str) -> Bus:
            settings = {"lease": 3, "backoff_base": 0.01, "backoff_cap": 0.05}
            bus = Bus(server.url, service="tests", namespace="forgotten", settings=settings)

            @bus.handle(Charged)
            async def charge(_charged: Charged) -> None:
                begun.append(name)
                try:
                    await goes_on.wait()
                except asyncio.CancelledError:
                    stopped.append(name)
                    raise
                effects.append(name)

            return bus

        one, two = member("one"), member("two")
        async with one, two:
            await one.publish(Charged(1))
            await until(lambda: len(begun) == 1)
            server.kill()
            await asyncio.to_thread(server.start)
            await until(lambda: stopped == begun[:1] and len(begun) > 1)
            goes_on.set()
            await until(lambda: any(b.counts()["tests/Charged"].get("ack") for b in (one, two)))
            assert len(effects) == 1

    with NatsServer(binary) as server:
        asyncio.run(law(server))
