"""What handlers of a program do besides: write through their transaction, publish, answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping

import attrs

from catga.bus import Bus
from catga.codecs import read_envelope
from catga.engine.context import Context
from catga.model.capability import Capability
from catga.model.message import Event, Request
from catga.model.qos import QualityOfService
from catga.spi import EffectKey
from catga.testing.programs.history import Asked, Books
from catga.testing.stage import Stage

__all__ = ["DERIVED", "Question", "audit", "perform_effects", "was_recorded"]


_PATIENCE = 60
"""Seconds of the law until a message that was committed must be where it was published to."""


@attrs.frozen
class Echo(Event):
    """Published by a handler at once: once for each message and group, over all its runs."""

    qos = QualityOfService.EXACTLY_ONCE
    text: str


@attrs.frozen
class Sealed(Event):
    """Published by the commit of a handler's transaction, or not at all."""

    qos = QualityOfService.EXACTLY_ONCE
    text: str


@attrs.frozen
class Question(Request[str]):
    """What is asked at QoS 2; every run of its handler would answer something else."""

    qos = QualityOfService.EXACTLY_ONCE
    text: str


DERIVED: tuple[type[Event], ...] = (Echo, Sealed)


async def perform_effects(bus: Bus, group: str, context: Context) -> None:
    """Publish, and count this run where it counts only when it is committed."""
    name = f"{context.message_id}/{group}"
    await bus.publish(Echo(name))
    if Capability.ATOMIC in bus.transport.capabilities:
        await _count(context)
    if Capability.ATOMIC_PUBLISH in bus.transport.capabilities:
        await context.transaction.publish(Sealed(name))


async def _count(context: Context) -> None:
    before = await context.transaction.read(context.message_id)
    context.transaction.write(context.message_id, b"%d" % (int(before or b"0") + 1))


async def was_recorded(bus: Bus, stage: Stage, type_: str, message_id: str, group: str) -> bool:
    """Say whether a completion is recorded already, as a handler begins."""
    inbox = bus.transport.inbox
    assert inbox is not None, "exactly once needs completion records"
    (found,) = await inbox.completed([stage.completion(type_, message_id, group)])
    return found


async def audit(
    stage: Stage, groups: Iterable[str], ids: Iterable[str], asked: Iterable[Asked]
) -> Books:
    """Return what the broker has of all that in the end."""
    inbox = await stage.inbox(stage.anchor, "Once", "Question")
    places = [(group, id_, "Once") for group in groups for id_ in sorted(set(ids))]
    places += [("a", id_, "Question") for id_ in sorted({each.id for each in asked})]
    keys = [stage.completion(type_, id_, group) for group, id_, type_ in places]
    recorded = await stage.wait(inbox.completed(keys))
    counts: dict[tuple[str, str], int] | None = None
    store = stage.anchor.effects
    if store is not None:
        named = [EffectKey(stage.namespace, group, type_, id_) for group, id_, type_ in places]
        found = await stage.wait(store.read(named))
        counts = {
            (group, id_): int(each.value or b"0")
            for (group, id_, _), each in zip(places, found, strict=True)
        }
    return Books(
        records=frozenset(
            (group, id_) for (group, id_, _), done in zip(places, recorded, strict=True) if done
        ),
        effects=counts,
        echoes=await _names(stage, "Echo"),
        sealed=await _sealed(stage, counts or {}),
    )


async def _sealed(
    stage: Stage, counts: Mapping[tuple[str, str], int]
) -> Counter[tuple[str, str]] | None:
    """Return what commits published; a broker may carry it on to its place a while later, and if
    whoever does that dies, after its lease."""
    if Capability.ATOMIC_PUBLISH not in stage.anchor.capabilities:
        return None
    found = await _names(stage, "Sealed")
    for _ in range(_PATIENCE):
        if all(found[place] >= count for place, count in counts.items()):
            break
        await stage.pass_time(1.0)
        found = await _names(stage, "Sealed")
    return found


async def _names(stage: Stage, type_: str) -> Counter[tuple[str, str]]:
    names = [
        json.loads(bytes(read_envelope(body, None).data))["text"]
        for body in await stage.copies(type_)
    ]
    return Counter((group, id_) for id_, _, group in (name.rpartition("/") for name in names))
