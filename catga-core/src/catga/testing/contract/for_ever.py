"""Stored once for ever: what W promises, without its end."""

from __future__ import annotations

import math

from catga.errors import CapabilityError
from catga.model.capability import Capability
from catga.spi import Ack, Done, Kind, Mode
from catga.testing.contract.messages import Charged, keep
from catga.testing.harness import Ability, law
from catga.testing.raising import raises
from catga.testing.stage import Stage

__all__ = ["ForEverContract"]

_IDS = ("m-1", "a.b.c", "*", ">", "a:b/c?d#e", "~" * 128)
_FOR_EVER: dict[str, float] = {"dedupe_window": math.inf}
_SHORT = 0.5
"""A window of the law's seconds that is over long before an id is published again."""


class ForEverContract:
    """Laws of an infinite `dedupe_window`."""

    @law(qos=2)
    async def test_for_ever_is_there_or_refused(self, stage: Stage) -> None:
        """QoS 2, first law: what cannot be kept is refused at the start, never shortened."""
        bus = stage.bus(settings={"dedupe_window": None}, publishes=[Charged])
        if Capability.FOREVER not in stage.anchor.capabilities:
            with raises(CapabilityError, naming="dedupe_window=none needs deduplicate-for"):
                await stage.wait(bus.__aenter__())
            return
        async with stage.running(bus):
            assert "W=for ever" in repr(bus)
            assert not (await bus.publish(Charged(1), message_id="m-1")).duplicate
            assert (await bus.publish(Charged(1), message_id="m-1")).duplicate

    @law(qos=2, needs=[Capability.FOREVER])
    async def test_long_after_the_window_the_repeat_names_the_original(self, stage: Stage) -> None:
        """QoS 2, first law, for ever: however late and from wherever an id comes again, also
        after every group has settled it: nothing is stored, and the receipt says so."""
        transport, other = await stage.transport(), await stage.transport()
        short = stage.topology(publishes=["Charge"], qos=2, dedupe_window=stage.scaled(_SHORT))
        await transport.prepare(short, Mode.CREATE)
        member = await stage.member(transport, "Charge", window=100)
        batch = [stage.out("Charge", b"%d" % n, qos=2, message_id=_IDS[n]) for n in range(6)]
        first = await stage.store(transport, *batch, **_FOR_EVER)
        assert not any(each.duplicate for each in first)
        for delivery in await stage.receive(member, 6):
            assert await stage.settle(member, delivery, Ack()) == Done()
        await stage.pass_time(4 * _SHORT)
        for sender in (transport, other):
            again = await stage.store(sender, *batch, **_FOR_EVER)
            assert all(each.duplicate for each in again)
            assert [each.sequence for each in again] == [each.sequence for each in first]
        await stage.nothing(member)

    @law(qos=2, needs=[Capability.FOREVER])
    async def test_for_ever_the_key_is_still_subject_and_id(self, stage: Stage) -> None:
        """QoS 2, words: one id on several subjects is several messages, and each comes from the
        subject it was published on."""
        transport = await stage.transport()
        same = {"qos": 2, "message_id": "m.1"}
        batch = [
            stage.out("Charge", b"log", **same),  # type: ignore[arg-type]
            stage.out("Charge", b"a", kind=Kind.TO, group="a", **same),  # type: ignore[arg-type]
            stage.out("Charge", b"b", kind=Kind.TO, group="b", **same),  # type: ignore[arg-type]
        ]
        receipts = await stage.store(transport, *batch, *batch, **_FOR_EVER)
        assert [each.duplicate for each in receipts] == [False] * 3 + [True] * 3
        member = await stage.member(transport, "Charge", "a")
        found = {each.body: each.subject for each in await stage.receive(member, 2)}
        assert found == {b"log": batch[0].subject, b"a": batch[1].subject}
        await stage.nothing(member)

    @law(qos=2, needs=[Capability.FOREVER, Ability.RESTART])
    async def test_for_ever_outlives_the_broker(self, stage: Stage) -> None:
        """QoS 2, first law, for ever: over a restart of the broker, too."""
        bus = stage.bus(settings={"dedupe_window": None})
        heard = keep(bus, Charged)
        async with stage.running(bus):
            first = await bus.publish(Charged(1), message_id="m.1")
            await stage.until(lambda: bus.counts()["law/Charged"].get("ack") == 1)
            assert stage.harness.restart is not None
            await stage.harness.restart()
            again = await stage.wait(bus.publish(Charged(1), message_id="m.1"))
            assert (again.duplicate, again.sequence) == (True, first.sequence)
        assert heard.calls == [(1, 1)]
