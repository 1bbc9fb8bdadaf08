"""The atomic mode: what a transaction writes is there once, together with its record, or not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from catga.bus import Bus
from catga.engine.context import Context
from catga.errors import CapabilityError, ConfigurationError
from catga.model.capability import Capability
from catga.spi import (
    Conflict,
    Delivery,
    Done,
    EffectKey,
    Effects,
    Found,
    Kind,
    Lost,
    Mode,
    SettleResult,
    Subscription,
    Transport,
    Unknown,
)
from catga.testing.contract.messages import Charged, Ordered
from catga.testing.harness import Ability, law
from catga.testing.raising import raises
from catga.testing.stage import Stage

__all__ = ["AtomicContract"]

_NAMES = ["plain", "a.b", "*", ">", "a:b/c?d", "=", "{x}", "~" * 128, "A", "a"]


class AtomicContract:
    """Laws of `context.transaction`, of `Commit.effects` and of `Transport.effects`."""

    # ---- what a handler sees

    @law(qos=2)
    async def test_a_transaction_is_there_or_refused(self, stage: Stage) -> None:
        """Words: where effects cannot be committed with the record, nothing pretends to."""
        bus, refused = stage.bus(), list[Exception]()
        atomic = Capability.ATOMIC in stage.anchor.capabilities

        @bus.handle(Charged)
        async def handle(_charged: Charged, context: Context) -> None:
            try:
                context.transaction.write("key", b"1")
            except CapabilityError as error:
                refused.append(error)

        async with stage.running(bus):
            await bus.publish(Charged(1))
            await stage.until(lambda: bus.counts()["law/Charged"].get("ack"))
        assert len(refused) == (0 if atomic else 1)
        assert all(Capability.ATOMIC.value in str(error) for error in refused)
        assert atomic is (stage.anchor.effects is not None)

    @law(qos=2)
    async def test_a_transaction_below_qos_2_is_refused(self, stage: Stage) -> None:
        """Words: without a record nothing would stop a second delivery from writing again."""
        bus, refused = stage.bus(), list[str]()

        @bus.handle(Ordered)
        async def handle(_ordered: Ordered, context: Context) -> None:
            with raises(CapabilityError) as error:
                context.transaction.write("key", b"1")
            refused.append(str(error.value))

        async with stage.running(bus):
            await bus.publish(Ordered(1))
            await stage.until(lambda: refused)
        assert "QoS 2" in refused[0]

    @law(qos=2, needs=[Capability.ATOMIC])
    async def test_commands_are_looked_at_or_refused(self, stage: Stage) -> None:
        """Words: a broker without commands of its own says so at once; one that has some takes
        none that it does not know to succeed."""
        bus, refused = stage.bus(), list[Exception]()
        there = Capability.COMMANDS in stage.anchor.capabilities

        @bus.handle(Charged)
        async def handle(_charged: Charged, context: Context) -> None:
            with raises(ConfigurationError if there else CapabilityError) as error:
                context.transaction.command("EXPLODE", "key", 1)
            refused.append(error.value)

        async with stage.running(bus):
            await bus.publish(Charged(1))
            await stage.until(lambda: bus.counts()["law/Charged"].get("ack"))
        assert len(refused) == 1

    @law(qos=2, needs=[Capability.ATOMIC])
    async def test_every_effect_is_there_exactly_once(self, stage: Stage) -> None:
        """QoS 2, second law: members of a group add to one balance at the same time: each message
        counts once, and who read what another changed runs again, as the same attempt."""
        publisher = stage.bus(consume=False, publishes=[Charged])
        async with stage.running(publisher):
            for number in range(1, 13):
                await stage.wait(publisher.publish(Charged(number)))
        # Longer than all of it takes: a lease that ends would be another attempt.
        buses = [stage.bus(settings={"lease": 10 * stage.lease}) for _ in range(2)]
        attempts = [_add(bus) for bus in buses]
        async with stage.running(*buses):
            await stage.until(lambda: _acks(buses) == 12)
            assert await _balance(stage, "law") == b"78"
        assert {attempt for each in attempts for attempt in each} == {1}

    @law(qos=2, needs=[Capability.ATOMIC])
    async def test_a_run_that_fails_writes_nothing(self, stage: Stage) -> None:
        """QoS 2, second law: effects wait for the end of the handler, and go with it."""
        bus = stage.bus()
        found: list[bytes | None] = []

        @bus.handle(Charged)
        async def handle(charged: Charged, context: Context) -> None:
            tx = context.transaction
            found.append(await tx.read("balance"))
            tx.write("balance", b"%d" % charged.number)
            assert await tx.read("balance") == b"%d" % charged.number, "it reads its own writes"
            if context.attempt == 1:
                raise ValueError("after the effect")

        async with stage.running(bus):
            await bus.publish(Charged(7))
            await stage.until(lambda: bus.counts()["law/Charged"].get("ack"))
            assert await _balance(stage, "law") == b"7"
        assert found == [None, None]

    @law(qos=2, needs=[Capability.ATOMIC])
    async def test_a_crash_after_the_effect_leaves_nothing(self, stage: Stage) -> None:
        """QoS 2, second law: a bus that dies between effect and record has written neither;
        whoever takes over writes both, once."""
        first, second = stage.bus(), stage.bus()
        begun = asyncio.Event()

        @first.handle(Charged)
        async def hang(charged: Charged, context: Context) -> None:
            context.transaction.write("balance", b"%d" % charged.number)
            begun.set()
            await asyncio.Event().wait()

        _add(second)
        async with stage.running(first):
            await first.publish(Charged(5))
            await stage.until(begun.is_set)
            await stage.wait(first.close())
        assert await _balance(stage, "law") is None
        async with stage.running(second):
            await stage.until(lambda: _acks([second]) == 1)
            assert await _balance(stage, "law") == b"5"

    @law(qos=2, needs=[Capability.ATOMIC])
    async def test_a_second_copy_writes_nothing(self, stage: Stage) -> None:
        """QoS 2, second law: the record is the fence, also for a replayed or a repeated copy."""
        transport, bus = await stage.transport(), stage.bus()
        _add(bus)
        async with stage.running(bus):
            await bus.publish(Charged(3))
            await stage.until(lambda: _acks([bus]) == 1)
            (copy,) = stage.tap.stored(Kind.LOG)
            again = stage.out("Charged", copy.body, qos=2, kind=Kind.REDO, group="law")
            await stage.store(transport, again)
            await stage.until(lambda: _acks([bus]) == 2)
            assert await _balance(stage, "law") == b"3"

    # ---- what a transport does

    @law(qos=2, needs=[Capability.ATOMIC])
    async def test_keys_hold_what_was_committed_for_one_group_and_one_type(
        self, stage: Stage
    ) -> None:
        """QoS 2, second law: bytes come back as they were written, under names of all sorts."""
        transport, member, (delivery, second) = await _held(stage, 2)
        keys = [_key(stage, name) for name in _NAMES]
        values = [b"", bytes(range(256)), *(b"%d" % n for n in range(len(keys) - 2))]
        assert await _read(stage, keys) == [Found(None, "")] * len(keys)
        written = Effects({}, dict(zip(keys, values, strict=True)))
        assert await stage.commit(member, delivery, "m-1", written) == Done()
        assert [found.value for found in await _read(stage, keys)] == values
        others = [
            EffectKey(stage.namespace, "audit", "Charge", "plain"),
            EffectKey(stage.namespace, "workers", "Refund", "plain"),
        ]
        assert [found.value for found in await _read(stage, others)] == [None, None]
        gone = Effects({}, {keys[1]: None, keys[2]: b"new"})
        assert await stage.commit(member, second, "m-2", gone) == Done()
        left = [found.value for found in await _read(stage, keys[:3])]
        assert left == [values[0], None, b"new"]
        await transport.close()

    @law(qos=2, needs=[Capability.ATOMIC])
    async def test_a_conflict_writes_nothing_and_can_be_tried_again(self, stage: Stage) -> None:
        """QoS 2, second law: all or nothing: one version that differs keeps everything back, the
        record and the acknowledgement as well."""
        transport, member, (one, two) = await _held(stage, 2)
        read, other = _key(stage, "read"), _key(stage, "other")
        (before,) = await _read(stage, [read])
        changed = Effects({read: before}, {read: b"1"})
        assert await stage.commit(member, one, "m-1", changed) == Done()
        stale = Effects({read: before}, {other: b"x", read: b"2"})
        assert await stage.commit(member, two, "m-2", stale) == Conflict()
        assert [found.value for found in await _read(stage, [read, other])] == [b"1", None]
        inbox = transport.inbox
        assert inbox is not None
        keys = [stage.completion("Charge", name) for name in ("m-1", "m-2")]
        assert await stage.wait(inbox.completed(keys)) == [True, False]
        fresh = Effects({read: (await _read(stage, [read]))[0]}, {other: b"x"})
        assert await stage.commit(member, two, "m-2", fresh) == Done()
        assert [found.value for found in await _read(stage, [read, other])] == [b"1", b"x"]

    @law(qos=2, needs=[Capability.ATOMIC])
    async def test_of_two_members_with_one_message_one_writes(self, stage: Stage) -> None:
        """QoS 2, second law: no lease is needed: who comes second finds the record there."""
        _, first, (one, copy) = await _held(stage, 2)
        key = _key(stage, "balance")
        done = await stage.commit(first, one, "m-1", Effects({}, {key: b"first"}))
        assert isinstance(done, Done)
        assert not done.before
        late = await stage.commit(first, copy, "m-1", Effects({}, {key: b"second"}))
        assert isinstance(late, Done)
        assert late.before
        assert [found.value for found in await _read(stage, [key])] == [b"first"]
        other = await stage.member(await stage.transport(), "Charge")
        await stage.nothing(other, 3)

    @law(qos=2, needs=[Capability.ATOMIC])
    async def test_a_late_commit_writes_nothing(self, stage: Stage) -> None:
        """QoS 2, second law, and QoS 1, sixth law: what an expired owner worked out is lost."""
        _, late, (held,) = await _held(stage, 1)
        await stage.wait(late.drain())
        owner = await stage.member(await stage.transport(), "Charge")
        (taken,) = await stage.receive(owner, 1)
        key = _key(stage, "balance")
        lost = await stage.commit(late, held, "m-1", Effects({}, {key: b"late"}))
        assert lost == Lost()
        assert [found.value for found in await _read(stage, [key])] == [None]
        done = await stage.commit(owner, taken, "m-1", Effects({}, {key: b"owner"}))
        assert done == Done()
        assert [found.value for found in await _read(stage, [key])] == [b"owner"]

    @law(qos=2, needs=[Capability.ATOMIC, Ability.CUT])
    async def test_a_commit_that_is_cut_anywhere_writes_once(self, stage: Stage) -> None:
        """Faults, cut at the k-th write, before or after the broker was given it: all or nothing,
        and trying again ends it."""
        proxy, url = await stage.proxy()
        transport = await stage.transport(url)
        source = stage.source("Charge", lease=60.0)
        await transport.prepare(stage.topology(source, qos=2), Mode.CREATE)
        key = _key(stage, "sum")
        for number, when in enumerate(("before", "after", "after")):
            member = await transport.subscribe(source)
            await stage.store(stage.anchor, stage.out("Charge", b"%d" % number, qos=2))
            (delivery,) = await stage.receive(member, 1)
            (found,) = await _read(stage, [key])
            effects = Effects({key: found}, {key: b"%d" % (number + 1)})
            proxy.cut_at_write(1, "after" if when == "after" else "before")
            result: SettleResult = Unknown(CapabilityError("not tried yet"))
            while isinstance(result, Unknown):
                result = await stage.commit(member, delivery, f"m-{number}", effects)
                await stage.pass_time(0.1)
            assert result == Done()
            proxy.heal()
            assert (await _read(stage, [key]))[0].value == b"%d" % (number + 1)
            await stage.wait(member.close())

    @law(qos=2, needs=[Capability.ATOMIC, Ability.RESTART])
    async def test_effects_survive_a_restart_of_the_broker(self, stage: Stage) -> None:
        """Faults, SIGKILL and restart on its data: record and effects are both there."""
        transport, member, (delivery,) = await _held(stage, 1)
        key = _key(stage, "balance")
        written = Effects({key: Found(None, "")}, {key: b"1"})
        assert await stage.commit(member, delivery, "m-1", written) == Done()
        await transport.close()
        assert stage.harness.restart is not None
        await stage.harness.restart()
        back = await stage.transport()
        inbox = await stage.inbox(back, "Charge")
        assert await stage.wait(inbox.completed([stage.completion("Charge", "m-1")])) == [True]
        assert back.effects is not None
        (found,) = await stage.wait(back.effects.read([key]))
        assert found.value == b"1"


async def _held(stage: Stage, count: int) -> tuple[Transport, Subscription, Sequence[Delivery]]:
    """Return a transport, a member of `workers`, and so many deliveries in its hand."""
    transport = await stage.transport()
    await stage.inbox(transport, "Charge")
    member = await stage.member(transport, "Charge")
    await stage.store(transport, *(stage.out("Charge", b"%d" % n, qos=2) for n in range(count)))
    return transport, member, await stage.receive(member, count)


def _key(stage: Stage, name: str) -> EffectKey:
    return EffectKey(stage.namespace, "workers", "Charge", name)


async def _read(stage: Stage, keys: Sequence[EffectKey]) -> list[Found]:
    """Read with another transport than the one that wrote."""
    store = stage.anchor.effects
    assert store is not None
    return await stage.wait(store.read(keys))


async def _balance(stage: Stage, group: str) -> bytes | None:
    (found,) = await _read(stage, [EffectKey(stage.namespace, group, "Charged", "balance")])
    return found.value


def _add(bus: Bus) -> list[int]:
    """Let the bus add each charge to the balance; return the list of the attempts it made."""
    attempts: list[int] = []

    @bus.handle(Charged)
    async def add(charged: Charged, context: Context) -> None:
        attempts.append(context.attempt)
        tx = context.transaction
        balance = int(await tx.read("balance") or b"0")
        await asyncio.sleep(0)  # others read the same meanwhile
        tx.write("balance", b"%d" % (balance + charged.number))

    return attempts


def _acks(buses: Sequence[Bus]) -> int:
    return sum(bus.counts()["law/Charged"].get("ack", 0) for bus in buses)
