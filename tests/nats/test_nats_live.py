"""Laws of QoS 0, requests and responses on NATS core."""

from __future__ import annotations

import asyncio
import socket

import pytest
from nats_kit import Opened, collect, nothing_comes, opened, until

from catga.spi import (
    Ack,
    Done,
    EventKind,
    Kind,
    Outgoing,
    QualityOfService,
    Receipt,
    Settle,
    Source,
    Subject,
)
from catga_nats.live import LiveSubscription
from catga_nats.testing import NatsServer


def _live(here: Opened, group: str = "") -> Source:
    return Source(here.namespace, "Order", group)


def _said(here: Opened, body: bytes, group: str = "") -> Outgoing:
    return here.outgoing(body, None, Kind.LIVE_TO if group else Kind.LIVE, group)


def test_every_listener_and_one_member_of_each_group_gets_it(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            alone = [await here.subscribe(_live(here)) for _ in range(2)]
            members = [await here.subscribe(_live(here, "one")) for _ in range(2)]
            other = await here.subscribe(_live(here, "two"))
            bodies = [b"%d" % number for number in range(40)]
            results = await here.transport.publish([_said(here, body) for body in bodies])
            assert all(isinstance(result, Receipt) for result in results)
            for listener in (*alone, other):
                assert [each.body for each in await collect(listener, 40)] == bodies
            shared: list[bytes] = []
            while len(shared) < 40:
                for member in members:
                    shared += [each.body for each in await member.receive(40, 0.1)]
            assert sorted(shared) == sorted(bodies)
            for each in (*alone, *members, other):
                await nothing_comes(each, 0.05)

    asyncio.run(law())


def test_what_leaves_at_once_overtakes_nothing(server: NatsServer) -> None:
    """The first of a turn of the loop and the large are written past the client's own queue, unless
    something waits in there."""

    async def law() -> None:
        async with opened(server.url) as here:
            listener = await here.subscribe(_live(here))
            large = b"x" * 300_000
            bodies = [body for number in range(30) for body in (b"%d" % number, b"-", large)]
            for body in bodies:
                await here.transport.publish([_said(here, body)])
            assert [each.body for each in await collect(listener, 90)] == bodies

    asyncio.run(law())


def test_what_is_sent_to_one_group_reaches_one_member_of_it(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            one = await here.subscribe(_live(here, "one"))
            two = await here.subscribe(_live(here, "two"))
            alone = await here.subscribe(_live(here))
            await here.transport.publish([_said(here, b"for one", "one")])
            (delivery,) = await collect(one, 1)
            assert delivery.subject == Subject(here.namespace, Kind.LIVE_TO, "Order", "one")
            assert (delivery.attempt, delivery.sequence) == (1, "")
            assert delivery.lease_until == one.lease == float("inf")
            assert await one.settle([Settle(delivery, Ack())]) == [Done()]
            assert await one.extend([delivery]) == [Done()]
            await nothing_comes(two, 0.05)
            await nothing_comes(alone, 0.05)

    asyncio.run(law())


def test_nothing_at_qos_0_is_stored(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            await here.prepare(here.source(), qos=QualityOfService.EXACTLY_ONCE)
            await here.transport.publish([_said(here, b"gone"), _said(here, b"gone", "billing")])
            await nothing_comes(await here.subscribe(here.source()))
            await nothing_comes(await here.subscribe(_live(here)), 0.05)

    asyncio.run(law())


def test_a_request_nobody_listens_for_is_answered_at_once(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            me = Subject(here.namespace, Kind.REPLY, "token-1", "me")
            replies = await here.subscribe(Source(here.namespace, group="me", reply=True))
            request = Outgoing(
                Subject(here.namespace, Kind.LIVE_TO, "Order", "nobody"),
                b"{}",
                "id",
                QualityOfService.AT_MOST_ONCE,
                me,
            )
            await here.transport.publish([request])
            (delivery,) = await collect(replies, 1)
            assert delivery.no_responders
            assert delivery.subject == me

    asyncio.run(law())


def test_a_response_comes_to_the_bus_that_asked(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            mine = await here.subscribe(Source(here.namespace, group="me", reply=True))
            yours = await here.subscribe(Source(here.namespace, group="you", reply=True))
            answer = here.outgoing(b"42", None, Kind.REPLY, "me")
            await here.transport.publish([answer])
            (delivery,) = await collect(mine, 1)
            assert (delivery.body, delivery.no_responders) == (b"42", False)
            assert delivery.subject == answer.subject
            await nothing_comes(yours, 0.05)

    asyncio.run(law())


def test_drain_still_returns_what_was_received_and_nothing_new(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            subscription = await here.subscribe(_live(here))
            await here.transport.publish([_said(here, b"before")] * 20)
            await subscription.drain()
            await here.transport.publish([_said(here, b"after")])
            got = [each.body for each in await subscription.receive(100, 1)]
            assert got == [b"before"] * 20
            assert await subscription.receive(100, 60) == []

    asyncio.run(law())


def test_a_slow_listener_loses_messages_and_it_is_told(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url, live_buffer=10) as here:
            subscription = await here.subscribe(_live(here))
            assert isinstance(subscription, LiveSubscription)
            await here.transport.publish([_said(here, b"%d" % n) for n in range(50)])
            await until(lambda: subscription.dropped == 40)
            assert len(here.told(EventKind.SLOW_CONSUMER)) == 1
            assert len(await subscription.receive(100, 1)) == 10
            await here.transport.publish([_said(here, b"again")])
            assert len(await collect(subscription, 1)) == 1

    asyncio.run(law())


POISON = {
    "a subject that is not UTF-8": b"PUB %s\xff\xfe 2\r\n{}\r\n",
    "a reply that is not UTF-8": b"PUB %s \xff\xfe 2\r\n{}\r\n",
    "a header block without its first line": b"HPUB %s 4 6\r\n\r\n\r\n{}\r\n",
    "a header block of other bytes": b"HPUB %s 12 14\r\nNATS/1.0\xff\xff\r\n{}\r\n",
    "a header that says status": b"HPUB %s 25 27\r\nNATS/1.0\r\nStatus: 503\r\n\r\n{}\r\n",
}


def _shout(server: NatsServer, line: bytes) -> None:
    """Publish these bytes from outside."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
        raw.sendall(b'CONNECT {"verbose":false,"headers":true,"protocol":1}\r\n' + line)
        raw.sendall(b"PING\r\n")
        answer = b""
        while b"PONG" not in answer:
            more = raw.recv(4096)
            assert more, answer
            answer += more


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
def test_poison_from_outside_does_not_end_the_client(server: NatsServer, poison: bytes) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            live = await here.subscribe(_live(here))
            stored = await here.subscribe(here.source())
            replies = await here.subscribe(Source(here.namespace, group="me", reply=True))
            for subject in (
                Subject(here.namespace, Kind.LIVE, "Order").text,
                f"{here.namespace}.log.Order.0",
                f"{here.namespace}.reply.me.token",
            ):
                await asyncio.to_thread(_shout, server, poison % subject.encode())
            batch = [
                _said(here, b"alive"),
                here.outgoing(b"alive"),
                here.outgoing(b"alive", None, Kind.REPLY, "me"),
            ]
            await here.transport.publish(batch)
            for subscription in (live, stored, replies):
                seen: list[bytes] = []
                while b"alive" not in seen:
                    got = await collect(subscription, 1)
                    seen += [each.body for each in got]
                    settled = await subscription.settle([Settle(each, Ack()) for each in got])
                    assert settled == [Done()] * len(got)
            assert here.told(EventKind.DISCONNECTED) == []
            assert (await here.transport.health()).ok

    asyncio.run(law())
