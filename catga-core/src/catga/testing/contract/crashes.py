"""A bus that ends between any two steps of a completion, and what is repeated then: no more than
the words of quality of service 2 say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import attrs

from catga.bus import Bus
from catga.codecs import read_envelope
from catga.engine.context import Context
from catga.model.capability import Capability
from catga.spi import EffectKey
from catga.testing.contract.messages import Charged, Refunded, keep
from catga.testing.harness import law
from catga.testing.stage import NotShown, Stage
from catga.testing.tap import Point

__all__ = ["CrashesContract"]

_ID = "m-1"
_NEXT = 100
"""Added to the number of a message: the one behind it."""
_WINDOW = 0.5
"""Seconds of the law; a broker's clock may be late."""
_PATIENCE = 20.0
"""Seconds, never scaled down."""


@attrs.define
class _Outside:
    """Something that no transaction reaches: it counts what is done to it, and under which key."""

    numbers: list[int] = attrs.field(factory=list)
    keys: list[str] = attrs.field(factory=list)
    attempts: list[int] = attrs.field(factory=list)


class CrashesContract:
    """Laws of what a crash may repeat."""

    @law(qos=2)
    async def test_a_crash_before_the_handler_repeats_nothing(self, stage: Stage) -> None:
        """QoS 2, third law: received, looked up, not begun: another member begins."""
        outside = await _crash_and_recover(stage, Point.LOOKED_UP)
        assert outside.attempts == [2]

    @law(qos=2)
    async def test_a_crash_in_the_handler_before_its_effect_repeats_nothing(
        self, stage: Stage
    ) -> None:
        """QoS 2, third law: whatever it had written or published by then is not there twice."""
        outside = await _crash_and_recover(stage, None)
        assert outside.attempts == [2]

    @law(qos=2)
    async def test_a_crash_after_the_effect_repeats_it_once_under_the_same_key(
        self, stage: Stage
    ) -> None:
        """QoS 2, third law: the worst there is: the effect is outside of any transaction, and not
        recorded yet. It is repeated, with the same idempotency key, and once only; what was
        written through a transaction, and what was published, is there once."""
        outside = await _crash_and_recover(stage, Point.HANDLED)
        assert outside.attempts == [1, 2]
        assert len(set(outside.keys)) == 1

    @law(qos=2)
    async def test_each_crash_repeats_an_effect_once_at_the_most(self, stage: Stage) -> None:
        """QoS 2, third law: two crashes after the effect, two repeats; and none after that."""
        outside = await _crash_and_recover(stage, Point.HANDLED, crashes=2)
        assert outside.attempts == [1, 2, 3]
        assert len(set(outside.keys)) == 1

    @law(qos=2)
    async def test_a_crash_between_record_and_acknowledgement_repeats_nothing(
        self, stage: Stage
    ) -> None:
        """QoS 2, third law: what is recorded is acknowledged by whoever gets it next."""
        outside = await _crash_and_recover(stage, Point.RECORDED)
        assert outside.attempts == [1]

    @law(qos=2)
    async def test_a_crash_after_the_acknowledgement_repeats_nothing(self, stage: Stage) -> None:
        """QoS 2, third law: it is over."""
        outside = await _crash_and_recover(stage, Point.SETTLED)
        assert outside.attempts == [1]

    @law(qos=2, needs=[Capability.ATOMIC])
    async def test_wherever_it_crashes_a_transaction_is_written_once(self, stage: Stage) -> None:
        """QoS 2, second law: exactly once for each group and id, whatever crashes; and outside of
        it nothing is repeated that would not be without."""
        points: list[tuple[Point | None, int]] = [(Point.HANDLED, 2), (None, 1)]
        points += [(Point.LOOKED_UP, 1), (Point.RECORDED, 1)]
        for number, (point, most) in enumerate(points, 1):
            outside = await _crash_and_recover(stage, point, number=number, transaction=True)
            assert len(outside.numbers) == most

    # ---- the ends of W and D

    @law(qos=2)
    async def test_after_w_an_id_is_stored_again_and_within_d_not_handled_again(
        self, stage: Stage
    ) -> None:
        """QoS 2, first and third law: W ends, D goes on: the copy is acknowledged unhandled."""
        bus = stage.bus(settings=_short(stage, "dedupe_window"))
        heard = keep(bus, Charged)
        async with stage.running(bus):
            await bus.publish(Charged(1), message_id=_ID)
            await stage.until(lambda: bus.counts()["law/Charged"].get("ack") == 1)
            await _stored_again(stage, bus)
            await stage.until(lambda: bus.counts()["law/Charged"].get("ack") == 2)
        assert heard.calls == [(1, 1)]

    @law(qos=2)
    async def test_after_w_and_d_a_copy_is_handled_once_more(self, stage: Stage) -> None:
        """QoS 2, words: who publishes an id again when both are over publishes a new message:
        it is handled once more, and only once."""
        bus = stage.bus(settings=_short(stage, "dedupe_window", "completion_ttl"))
        heard = keep(bus, Charged)
        async with stage.running(bus):
            await bus.publish(Charged(1), message_id=_ID)
            await stage.until(lambda: bus.counts()["law/Charged"].get("ack") == 1)
            inbox = bus.transport.inbox
            assert inbox is not None, "exactly once needs completion records"
            key = stage.completion("Charged", _ID, "law")

            async def forgotten() -> bool:
                return not (await stage.wait(inbox.completed([key])))[0]

            await _until_over(stage, "D", forgotten)
            await _stored_again(stage, bus)
            await stage.until(lambda: bus.counts()["law/Charged"].get("ack") == 2)
            await stage.pass_time(1.0)
        assert heard.calls == [(1, 1), (1, 1)]


async def _crash_and_recover(
    stage: Stage,
    point: Point | None,
    crashes: int = 1,
    *,
    number: int = 1,
    transaction: bool = False,
) -> _Outside:
    """Let a bus end at this point (None: in the handler), `crashes` times over, and another one
    come after it; return what it did outside, and hold the rest against what is promised."""
    outside = _Outside()
    publisher = stage.bus(consume=False, publishes=[Charged])
    async with stage.running(publisher):
        await publisher.publish(Charged(number), message_id=f"m-{number}")
        for _ in range(crashes):
            await _until_it_crashes(stage, outside, point, transaction=transaction)
        survivor = stage.bus(publishes=[Refunded])
        _handle(survivor, outside, transaction=transaction)
        async with stage.running(survivor):
            await publisher.publish(Charged(number + _NEXT))
            await stage.until(lambda: number + _NEXT in outside.numbers)
            await stage.pass_time(2.5)  # a lease and some more: what may come has come
            await stage.until(lambda: not survivor.counts()["law/Charged"].get("in-hand"))
            # A re-run may have found its publish there already; a crash may have come before it.
            refunds = [read_envelope(body).data for body in await stage.copies("Refunded")]
            assert refunds.count(b'{"number":%d}' % number) == 1, "published once, over all runs"
            if transaction:
                assert await _written(stage, number) == b"1", "written once, over all runs"
    assert outside.numbers.count(number + _NEXT) == 1, "the one behind it ran once"
    places = [place for place, each in enumerate(outside.numbers) if each == number]
    return _Outside(
        [outside.numbers[place] for place in places],
        [outside.keys[place] for place in places],
        [outside.attempts[place] for place in places],
    )


async def _until_it_crashes(
    stage: Stage, outside: _Outside, point: Point | None, *, transaction: bool
) -> None:
    crashed = asyncio.Event()
    bus = stage.bus(publishes=[Refunded])

    async def end() -> None:
        await bus.transport.close()  # from here on nothing of it reaches the broker
        await bus.close()
        crashed.set()

    async def crash() -> None:
        stage.tap.at = None
        stage.tasks.spawn(end(), "crash")
        await asyncio.Event().wait()

    async def at(reached: Point) -> None:
        if reached is point:
            await crash()

    if point is None:
        _handle(bus, outside, transaction=transaction, crash=crash)
    else:
        _handle(bus, outside, transaction=transaction)
        stage.tap.at = at
    await stage.wait(bus.__aenter__())
    await stage.until(crashed.is_set)


def _handle(
    bus: Bus,
    outside: _Outside,
    *,
    transaction: bool,
    crash: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Write, publish, and have an effect elsewhere; with `crash` end before that."""

    @bus.handle(Charged)
    async def handle(charged: Charged, context: Context) -> None:
        if transaction:
            tx, key = context.transaction, f"{charged.number}"
            tx.write(key, b"%d" % (int(await tx.read(key) or b"0") + 1))
        await bus.publish(Refunded(charged.number))
        if crash is not None:
            await crash()
        outside.numbers.append(charged.number)
        outside.keys.append(context.idempotency_key)
        outside.attempts.append(context.attempt)


async def _written(stage: Stage, number: int) -> bytes | None:
    store = stage.anchor.effects
    assert store is not None
    key = EffectKey(stage.namespace, "law", "Charged", f"{number}")
    (found,) = await stage.wait(store.read([key]))
    return found.value


def _short(stage: Stage, *windows: str) -> dict[str, object]:
    """Settings with these windows at a fraction of a second, and the risk accepted by name."""
    seconds = max(0.1, stage.scaled(_WINDOW))
    risks = ["dedupe_window", "completion_ttl", "replay"]
    return {"accept_risk": risks, **dict.fromkeys(windows, seconds)}


async def _stored_again(stage: Stage, bus: Bus) -> None:
    """Publish the id until it is stored anew: once, and that is the copy that counts."""

    async def stored() -> bool:
        return not (await stage.wait(bus.publish(Charged(1), message_id=_ID))).duplicate

    await _until_over(stage, "W", stored)


async def _until_over(stage: Stage, window: str, over: Callable[[], Awaitable[bool]]) -> None:
    """Wait until `over`. A window is a minimum: who remembers for longer breaks no law."""
    patience = stage.patience(_PATIENCE)
    deadline = stage.clock.monotonic() + patience
    while not await over():
        if stage.clock.monotonic() > deadline:
            raise NotShown(f"an end of {window} in less than {patience:.0f} s")
        await stage.pass_time(_WINDOW)
