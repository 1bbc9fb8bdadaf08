"""What a stream's configuration means for the promises: pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from catga.spi import Topology
from catga_nats import names
from catga_nats.reconcile import Step
from catga_nats.settings import Storage

__all__ = ["BOUNDS", "UNTRIMMED", "Risk", "consumer_risks", "found_risks", "narrowing_risks"]


BOUNDS = ("max_bytes", "max_msgs")
"""Settings of a stream beyond which something has to give way."""


@attrs.frozen
class Risk:
    """One weakness. With a `name` it breaks QoS 2 unless it is accepted by that name."""

    name: str
    words: str
    always: bool = False
    """Whether it breaks what others were promised, so that it is refused at any quality."""


UNTRIMMED = Risk(
    "",
    "retention removes nothing on NATS: a stream keeps what is settled until its max_age, which "
    "also removes what nobody handled",
)


def found_risks(config: Mapping[str, Any], topology: Topology) -> Iterator[Risk]:
    """Hold one stream, as the server has it, against what this topology needs."""
    name = config["name"]
    if config.get("storage") == Storage.MEMORY:
        yield Risk(
            "storage",
            f"the stream {name} has storage=memory, a server restart loses it: create it with "
            "storage=file",
        )
    if name == names.inbox_stream(topology.namespace):
        kept = config.get("max_age", 0) / 1e9
        if 0 < kept < topology.completion_ttl:
            yield Risk(
                "completion_ttl",
                f"the stream {name} has max_age={kept:g}s, D is {topology.completion_ttl:g}s: "
                "raise max_age on the server",
            )
        return
    if name == names.tx_stream(topology.namespace):
        if age := config.get("max_age", 0):
            yield Risk(
                "max_age",
                f"the stream {name} has max_age={age / 1e9:g}s: what transactions wrote is removed "
                "then: take away max_age on the server",
            )
        return
    window = config.get("duplicate_window", 0) / 1e9
    if window < topology.dedupe_window and not math.isinf(topology.dedupe_window):
        yield Risk(
            "duplicate_window",
            f"the stream {name} has duplicate_window={window:g}s, W is "
            f"{topology.dedupe_window:g}s: set duplicate_window (and no shorter max_age)",
        )
    limited = any(config.get(key, -1) > 0 for key in BOUNDS)
    if (config.get("discard") == "old" and limited) or config.get("max_msgs_per_subject", -1) > 0:
        yield Risk(
            "discard",
            f"the stream {name} drops accepted messages for newer ones: set discard=new and no "
            "max_msgs_per_subject on the server",
        )
    if age := config.get("max_age", 0):
        yield Risk(
            "max_age",
            f"the stream {name} has max_age={age / 1e9:g}s: what is older is removed even when "
            "nobody handled it: take away max_age",
        )


def consumer_risks(config: Mapping[str, Any]) -> Iterator[Risk]:
    """Do the same for one consumer."""
    if (limit := config.get("max_deliver", -1)) > 0:
        yield Risk(
            "max_deliver",
            f"the consumer {config['name']} has max_deliver={limit}: a message that was delivered "
            "so often and never settled is stranded: take away max_deliver",
        )


def narrowing_risks(step: Step) -> Iterator[Risk]:
    """Name what a change would take from buses that are promised more already."""
    if step.has is None:
        return
    for key, why in _NARROWED.items():
        before, after = (config.get(key, 0) / 1e9 for config in (step.has, step.config))
        idle = key == "ack_wait" and not step.busy
        if after and (after < before or not before) and not idle:
            had = f"{before:g}s" if before else "none"
            yield Risk(
                "lease" if key == "ack_wait" else key,
                f"{step.thing.name} has {key}={had}, and {after:g}s {why}",
                always=True,
            )


_NARROWED = {
    "max_age": "would remove what is stored already: take away max_age, or use that of the stream",
    "duplicate_window": "would forget ids that other buses rely on: raise duplicate_window",
    "ack_wait": "would run elsewhere what its members still have in hand: use that lease, or stop "
    "the members first",
}
