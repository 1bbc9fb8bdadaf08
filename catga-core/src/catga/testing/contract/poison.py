"""Poison: what cannot be read is parked once, with its cause, and harms nobody."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from catga.bus import Bus
from catga.model.capability import Capability
from catga.spi import Kind, Outgoing
from catga.testing.contract.messages import Ordered, Ticked, keep
from catga.testing.harness import law
from catga.testing.stage import Stage

__all__ = ["PoisonContract"]

_GARBAGE = [
    b"",
    b"\x00",
    b"\xff\xfe not text",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"{}",
    b'{"number": 1}',
    b"[" * 5000,
    b'{"specversion": "1.0"}',
]


class PoisonContract:
    """Laws of messages that no handler can be given."""

    @law(qos=1)
    async def test_poison_is_parked_once_with_its_cause_and_its_bytes(self, stage: Stage) -> None:
        """QoS 1, ninth law: parked after one delivery; never blocks, kills or slows the others."""
        transport = await stage.transport()
        bus = stage.bus(settings={"concurrency": 1, "prefetch": 4})
        heard = keep(bus, Ordered)
        async with stage.running(bus):
            await bus.publish(Ordered(0))
            (good,) = stage.tap.stored(Kind.LOG)
            bad = [*_GARBAGE, *_damaged(good)]
            for place, body in enumerate(bad):
                await stage.store(transport, stage.out("Ordered", body))
                await bus.publish(Ordered(place + 1))
            counts = bus.counts
            await stage.until(lambda: len(heard.calls) > len(bad))
            await stage.until(lambda: counts()["law/Ordered"].get("dead-letter", 0) >= len(bad))
            await stage.pass_time(3)  # no lease is left that could end
            ended = counts()["law/Ordered"]
        assert heard.calls == [(number, 1) for number in range(len(bad) + 1)], "none was slowed"
        assert (ended["ack"], ended["dead-letter"], ended["poison"]) == (
            len(bad) + 1,
            len(bad),
            len(bad),
        )
        letters = _letters(stage)
        assert sorted(base64.b64decode(each["body_base64"]) for each in letters) == sorted(bad)
        assert {(each["cause"], each["attempts"], each["group"]) for each in letters} == {
            ("poison", 1, "law")
        }
        assert all(each["error"] for each in letters)
        again = stage.bus()
        later = keep(again, Ordered)
        async with stage.running(again):
            await again.publish(Ordered(99))
            await stage.until(lambda: later.calls)
            await stage.pass_time(0.5)
        assert later.calls == [(99, 1)]
        assert len(_letters(stage)) == len(bad)

    @law(qos=1)
    async def test_poison_on_a_groups_own_subjects_is_parked_too(self, stage: Stage) -> None:
        """QoS 1, ninth law: also what was sent to one group, and what was replayed to it."""
        transport = await stage.transport()
        bus = stage.bus()
        keep(bus, Ordered)
        async with stage.running(bus):
            kinds = (Kind.TO, Kind.REDO)
            bad = [stage.out("Ordered", b"bad", kind=kind, group="law") for kind in kinds]
            await stage.store(transport, *bad)
            await stage.until(lambda: bus.counts()["law/Ordered"].get("dead-letter") == 2)
        subjects = {each["subject"] for each in _letters(stage)}
        assert subjects == {each.subject.text for each in bad}

    @law(qos=1)
    async def test_each_group_parks_poison_for_itself(self, stage: Stage) -> None:
        """QoS 1, eighth and ninth law: a dead letter belongs to one group."""
        transport = await stage.transport()
        buses: list[Bus] = [stage.bus(group=name) for name in ("one", "two")]
        for bus in buses:
            keep(bus, Ordered)
        async with stage.running(*buses):
            await stage.store(transport, stage.out("Ordered", b"bad"))
            for bus in buses:
                name = f"{bus.group}/Ordered"
                await stage.until(
                    lambda bus=bus, name=name: bus.counts()[name].get("dead-letter")  # type: ignore[misc]  # bound now
                )
        assert {each["group"] for each in _letters(stage)} == {"one", "two"}

    @law(qos=0, needs=[Capability.LIVE_GROUPS])
    async def test_live_poison_is_counted_and_the_listener_goes_on(self, stage: Stage) -> None:
        """QoS 0, words: lost and said so; nothing is stored for it, not even a dead letter."""
        transport = await stage.transport()
        bus = stage.bus()
        heard = keep(bus, Ticked)
        async with stage.running(bus):
            await stage.store(transport, *(stage.out("Ticked", each, qos=0) for each in _GARBAGE))
            await bus.publish(Ticked(1))
            await stage.until(lambda: heard.calls)
            await stage.until(lambda: bus.counts()["law/Ticked"].get("poison") == len(_GARBAGE))
        assert heard.calls == [(1, 1)]
        assert stage.tap.stored(Kind.DEAD) == []


def _damaged(good: Outgoing) -> list[bytes]:
    """Return a good message with one thing wrong, for each thing."""
    changes: Sequence[dict[str, Any]] = (
        {"type": "Unknown"},
        {"type": 1},
        {"id": None},
        {"specversion": "7"},
        {"data": None},
        {"data": {}},
        {"data": {"number": "12"}},
        {"data": {"number": 1.5}},
        {"data": [1]},
    )
    whole = json.loads(good.body)
    return [json.dumps({**whole, **change}).encode() for change in changes]


def _letters(stage: Stage) -> list[dict[str, Any]]:
    return [json.loads(each.body)["data"] for each in stage.tap.stored(Kind.DEAD)]
