"""nats-py as documented, with the same typed messages and the same encoding as Catga's."""

from __future__ import annotations

import nats
from benchmarks.contestants.catga_bus import TYPES, _messages
from benchmarks.job import NAME, Job, Watch
from catga.codecs import TypeRegistry
from catga.engine.addressing import Addresser
from catga.model.qos import QualityOfService


async def publish(job: Job, watch: Watch) -> None:
    """Encode and publish in a loop, then flush."""
    messages = _messages(job)
    addresser = Addresser(TypeRegistry(), "bench", "bench", QualityOfService.AT_LEAST_ONCE)
    encode = addresser.route(TYPES[job.qos], QualityOfService.AT_MOST_ONCE).outgoing
    client = await nats.connect(job.url)
    watch.begin()
    for message in messages:
        await client.publish(NAME, encode(message).body)
    await client.flush()
    watch.end(job.count)
    await client.close()
