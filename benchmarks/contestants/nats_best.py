"""nats-py at its best, by what is public in it: bytes in, bytes out, nothing decoded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.aio.client import Client
from nats.aio.msg import Msg

import nats
from benchmarks.contestants.nats_documented import prepare
from benchmarks.job import NAME, Job, Sender, Watch

__all__ = ["consume", "prepare", "publish", "sender"]

WINDOW = 1024
ASK = 1000
"""Messages in one pull request; the next one leaves when half of them are still to come."""
LIMIT = 1 << 30


async def publish(job: Job, watch: Watch) -> None:
    """QoS 0: no validation of the subject. Above: one reply subscription, a window, a callback."""
    bodies = job.bodies()
    client = await nats.connect(job.url, skip_subject_validation=True)
    if not job.qos:
        watch.begin()
        for body in bodies:
            await client.publish(NAME, body)
        await client.flush()
        watch.end(job.count)
    else:
        await _publish_confirmed(client, bodies, watch)
    await client.close()


async def _publish_confirmed(client: Client, bodies: list[bytes], watch: Watch) -> None:
    inbox = client.new_inbox()
    window, confirmed = asyncio.Semaphore(WINDOW), 0
    complete = asyncio.Event()

    async def receive(message: Msg) -> None:
        nonlocal confirmed
        if b'"error"' in message.data or b'"seq"' not in message.data:
            raise RuntimeError(f"not stored: {json.loads(message.data)}")
        confirmed += 1
        window.release()
        if confirmed == len(bodies):
            complete.set()

    await client.subscribe(f"{inbox}.*", cb=receive)
    await client.flush()
    watch.begin()
    for number, body in enumerate(bodies):
        await window.acquire()
        await client.publish(
            NAME, body, reply=f"{inbox}.{number}", headers={"Nats-Msg-Id": f"id-{number}"}
        )
    await complete.wait()
    watch.end(confirmed)


@asynccontextmanager
async def sender(job: Job) -> AsyncIterator[Sender]:
    """Publish with one reply subscription and a future for each caller."""
    bodies = job.bodies()
    client = await nats.connect(job.url, skip_subject_validation=True)
    inbox = client.new_inbox()
    waiting: dict[str, asyncio.Future[None]] = {}
    loop = asyncio.get_running_loop()

    async def receive(message: Msg) -> None:
        future = waiting.pop(message.subject)
        if b'"error"' in message.data or b'"seq"' not in message.data:
            future.set_exception(RuntimeError(f"not stored: {message.data!r}"))
        else:
            future.set_result(None)

    await client.subscribe(f"{inbox}.*", cb=receive)
    await client.flush()

    async def send(number: int) -> None:
        reply = f"{inbox}.{number}"
        waiting[reply] = future = loop.create_future()
        headers = {"Nats-Msg-Id": f"id-{number}"}
        await client.publish(NAME, bodies[number], reply=reply, headers=headers)
        await future

    yield send, client.flush
    await client.close()


async def consume(job: Job, watch: Watch) -> None:
    """QoS 0: a callback. Above: own pull requests, acks published; at QoS 2 they are answered."""
    client = await nats.connect(job.url, skip_subject_validation=True)
    if not job.qos:

        async def handle(message: Msg) -> None:  # noqa: ARG001
            watch.add()

        await client.subscribe(NAME, cb=handle, pending_msgs_limit=LIMIT, pending_bytes_limit=LIMIT)
        await client.flush()
        watch.ready()
        await watch.complete()
    else:
        await _consume_stored(client, job, watch)
    watch.end()
    await client.close()


async def _consume_stored(client: Client, job: Job, watch: Watch) -> None:
    await client.jetstream().pull_subscribe(NAME, durable=NAME)
    inbox, answers = client.new_inbox(), client.new_inbox()
    request = json.dumps({"batch": ASK, "expires": 30_000_000_000}).encode()
    asked, answered = 0, 0
    settled = asyncio.Event()

    async def ask() -> None:
        nonlocal asked
        asked += ASK
        await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{NAME}.{NAME}", request, reply=inbox)

    async def answer(message: Msg) -> None:  # noqa: ARG001
        nonlocal answered
        answered += 1
        if answered == job.count:
            settled.set()

    async def handle(message: Msg) -> None:
        if not message.reply:  # a status of the server, no message
            return
        watch.add()
        if job.qos == 1:
            await client.publish(message.reply, b"+ACK")
        else:
            await client.publish(message.reply, b"+ACK", reply=answers)
        if asked - (job.count - watch.missing) <= ASK // 2 and watch.missing > 0:
            await ask()

    await client.subscribe(answers, cb=answer)
    await client.subscribe(inbox, cb=handle)
    watch.ready()
    await ask()
    await watch.complete()
    if job.qos > 1:
        await settled.wait()
    await client.flush()
