"""What a transaction publishes: with the completion of the handled message, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from catga.bus import Bus
from catga.codecs import read_envelope
from catga.engine.context import Context
from catga.errors import CapabilityError, ConfigurationError
from catga.model.capability import Capability
from catga.model.qos import QualityOfService
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
from catga.testing.contract.messages import Charged, Heard, Noted, Ordered, Refunded, Ticked, keep
from catga.testing.harness import Ability, law
from catga.testing.raising import raises
from catga.testing.stage import Stage

__all__ = ["OutgoingContract"]


class OutgoingContract:
    """Laws of `context.transaction.publish` and of `Effects.outgoing`."""

    # ---- what a handler sees

    @law(qos=2, needs=[Capability.ATOMIC])
    async def test_publishing_in_a_transaction_is_there_or_refused(self, stage: Stage) -> None:
        """Words: where it cannot leave with the commit, it is refused before anything is sent."""
        bus, refused = stage.bus(publishes=[Ordered]), list[str]()

        @bus.handle(Charged)
        async def handle(_charged: Charged, context: Context) -> None:
            try:
                await context.transaction.publish(Ordered(1))
            except CapabilityError as error:
                refused.append(str(error))

        async with stage.running(bus):
            await bus.publish(Charged(1))
            await stage.until(lambda: bus.counts()["law/Charged"].get("ack"))
        here = Capability.ATOMIC_PUBLISH in stage.anchor.capabilities
        assert len(refused) == (0 if here else 1)
        assert all(Capability.ATOMIC_PUBLISH.value in words for words in refused)
        assert len(await stage.copies("Ordered")) == (1 if here else 0)

    @law(qos=2, needs=[Capability.ATOMIC_PUBLISH])
    async def test_what_a_transaction_publishes_comes_once_and_in_order(self, stage: Stage) -> None:
        """QoS 2, second and fifth law: to all groups or to one, at QoS 1 and 2, under ids that are
        derived from the handled message unless they were given by hand."""
        bus, ids = stage.bus(publishes=[Refunded, Ordered]), list[str]()

        @bus.handle(Charged)
        async def handle(charged: Charged, context: Context) -> None:
            tx = context.transaction
            for number in range(3):
                ids.append(await tx.publish(Refunded(number)))
            assert await tx.publish(Refunded(3), message_id="by-hand") == "by-hand"
            await tx.send(Ordered(charged.number), to="law")

        refunds, orders = keep(bus, Refunded), keep(bus, Ordered)
        async with stage.running(bus):
            receipt = await bus.publish(Charged(7))
            await _handled(stage, bus, Refunded=4, Ordered=1)
        found = [read_envelope(body) for body in await stage.copies("Refunded")]
        assert [envelope.id for envelope in found] == [*ids, "by-hand"]
        assert {envelope.parent_id for envelope in found} == {receipt.message_id}
        assert len({*ids}) == 3
        assert (refunds.numbers, orders.calls) == ([0, 1, 2, 3], [(7, 1)])

    @law(qos=2, needs=[Capability.ATOMIC_PUBLISH])
    async def test_a_group_that_expected_less_commits_a_stricter_message_once(
        self, stage: Stage
    ) -> None:
        """QoS 2, second law: also what it writes and publishes in the transaction of such a one."""
        transport = await stage.transport()
        bus, other, sender = stage.bus(), stage.bus(), stage.bus(consume=False)
        runs, notes = list[bytes | None](), list[str]()

        @bus.handle(Ordered)
        async def handle(ordered: Ordered, context: Context) -> None:
            runs.append(await context.transaction.read("sum"))
            context.transaction.write("sum", b"%d" % ordered.number)
            await context.transaction.publish(Noted("after it"))

        @other.handle(Noted)
        async def note(noted: Noted) -> None:
            notes.append(noted.text)

        async with stage.running(bus, other, sender):
            await stage.wait(sender.publish(Ordered(1), qos=QualityOfService.EXACTLY_ONCE))
            await stage.until(lambda: notes)
            body = stage.tap.stored(Kind.LOG)[0].body
            copy = stage.out("Ordered", body, qos=2, kind=Kind.REDO, group="law")
            await stage.store(transport, copy)
            await stage.until(lambda: bus.counts()["law/Ordered"].get("ack") == 2)
        assert runs == [None]
        assert notes == ["after it"]

    @law(qos=2, needs=[Capability.ATOMIC_PUBLISH])
    async def test_what_no_broker_stores_cannot_be_part_of_a_commit(self, stage: Stage) -> None:
        """QoS 2, words: a message at QoS 0 would leave whether or not the commit comes."""
        bus, refused = stage.bus(publishes=[Ticked, Ordered]), list[str]()

        @bus.handle(Charged)
        async def handle(charged: Charged, context: Context) -> None:
            with raises(ConfigurationError) as error:
                await context.transaction.publish(Ticked(charged.number))
            refused.append(str(error.value))

        async with stage.running(bus):
            await bus.publish(Charged(1))
            await _handled(stage, bus, Charged=1)
        assert "QoS 0" in refused[0]

    @law(qos=2, needs=[Capability.ATOMIC_PUBLISH])
    async def test_a_run_that_fails_publishes_nothing_of_its_transaction(
        self, stage: Stage
    ) -> None:
        """QoS 2, second law: what was to be published waits for the end of the handler, and goes
        with it: of two runs that say different things only the last one is heard."""
        bus = stage.bus(publishes=[Refunded])

        @bus.handle(Charged)
        async def handle(_charged: Charged, context: Context) -> None:
            await context.transaction.publish(Refunded(context.attempt))
            if context.attempt == 1:
                raise ValueError("after it was to be published")

        heard = keep(bus, Refunded)
        async with stage.running(bus):
            await bus.publish(Charged(1))
            await _handled(stage, bus, Refunded=1)
        assert heard.calls == [(2, 1)]
        assert len(await stage.copies("Refunded")) == 1

    @law(qos=2, needs=[Capability.ATOMIC_PUBLISH])
    async def test_a_crash_before_the_commit_publishes_nothing(self, stage: Stage) -> None:
        """QoS 2, second law: a bus that dies in mid-handler has published nothing; whoever takes
        over publishes what it works out itself, once."""
        first, second = stage.bus(publishes=[Refunded]), stage.bus(publishes=[Refunded])
        begun = asyncio.Event()

        @first.handle(Charged)
        async def hang(_charged: Charged, context: Context) -> None:
            await context.transaction.publish(Refunded(1))
            begun.set()
            await asyncio.Event().wait()

        heard = _pass_on(second, 2)
        async with stage.running(first):
            await first.publish(Charged(1))
            await stage.until(begun.is_set)
            await stage.wait(first.close())
        async with stage.running(second):
            await _handled(stage, second, Refunded=1)
        assert heard.calls == [(2, 1)]
        assert len(await stage.copies("Refunded")) == 1

    @law(qos=2, needs=[Capability.ATOMIC_PUBLISH])
    async def test_a_second_copy_publishes_nothing_of_its_transaction(self, stage: Stage) -> None:
        """QoS 2, second law: the record is the fence, also for a replayed or a repeated copy."""
        transport, bus = await stage.transport(), stage.bus(publishes=[Refunded])
        heard = _pass_on(bus, 1)
        async with stage.running(bus):
            await bus.publish(Charged(1))
            await _handled(stage, bus, Charged=1, Refunded=1)
            copy = next(out for out in stage.tap.stored(Kind.LOG) if out.subject.type == "Charged")
            again = stage.out("Charged", copy.body, qos=2, kind=Kind.REDO, group="law")
            await stage.store(transport, again)
            await _handled(stage, bus, Charged=2)
        assert heard.calls == [(1, 1)]
        assert len(await stage.copies("Refunded")) == 1

    @law(qos=2, needs=[Capability.ATOMIC_PUBLISH])
    async def test_who_runs_again_after_a_conflict_publishes_once(self, stage: Stage) -> None:
        """QoS 2, second law: each member says what the balance became; nobody says what it would
        have been had another not been quicker."""
        publisher = stage.bus(consume=False, publishes=[Charged, Refunded])
        async with stage.running(publisher):
            for _ in range(8):
                await stage.wait(publisher.publish(Charged(1)))
        buses = [stage.bus(publishes=[Refunded]) for _ in range(2)]
        heard = [_count_up(bus) for bus in buses]
        async with stage.running(*buses):
            await stage.until(lambda: sum(len(each.calls) for each in heard) >= 8)
        assert sorted(number for each in heard for number in each.numbers) == list(range(1, 9))
        assert len(await stage.copies("Refunded")) == 8

    # ---- what a transport does

    @law(qos=2, needs=[Capability.ATOMIC_PUBLISH])
    async def test_a_conflict_publishes_nothing(self, stage: Stage) -> None:
        """QoS 2, second law: all or nothing: one version that differs keeps everything back."""
        _, member, (one, two) = await _held(stage, 2)
        key = EffectKey(stage.namespace, "workers", "Charge", "read")
        first = Effects({key: Found(None, "")}, {key: b"1"}, [stage.out("Paid", b"1", qos=2)])
        assert await stage.commit(member, one, "m-1", first) == Done()
        stale = Effects({key: Found(None, "")}, {key: b"2"}, [stage.out("Paid", b"2", qos=2)])
        assert await stage.commit(member, two, "m-2", stale) == Conflict()
        third = Effects({}, {}, [stage.out("Paid", b"3", qos=2)])
        assert await stage.commit(member, two, "m-2", third) == Done()
        assert await _bodies(stage, 2) == [b"1", b"3"]

    @law(qos=2, needs=[Capability.ATOMIC_PUBLISH])
    async def test_a_late_commit_publishes_nothing(self, stage: Stage) -> None:
        """QoS 2, second law, and QoS 1, sixth law: what an expired owner worked out is lost, and
        who comes second to a record adds nothing."""
        _, late, (held,) = await _held(stage, 1)
        await stage.wait(late.drain())
        other = await stage.transport()
        await stage.inbox(other, "Charge")
        owner = await stage.member(other, "Charge")
        (taken,) = await stage.receive(owner, 1)
        words = [Effects({}, {}, [stage.out("Paid", b"%d" % n, qos=2)]) for n in range(3)]
        assert await stage.commit(late, held, "m-1", words[0]) == Lost()
        assert await stage.commit(owner, taken, "m-1", words[1]) == Done()
        await stage.store(stage.anchor, stage.out("Charge", b"copy", qos=2))
        (copy,) = await stage.receive(owner, 1)
        again = await stage.commit(owner, copy, "m-1", words[2])
        assert isinstance(again, Done)
        assert again.before
        assert await _bodies(stage, 1) == [b"1"]

    @law(qos=2, needs=[Capability.ATOMIC_PUBLISH])
    async def test_one_id_in_two_commits_is_stored_once(self, stage: Stage) -> None:
        """QoS 2, first law: within W, also when it was published in the ordinary way before."""
        transport, member, (one, two) = await _held(stage, 2)
        same = stage.out("Paid", b"same", qos=2)
        before = stage.out("Paid", b"before", qos=2)
        await stage.store(transport, before)
        for name, delivery in (("m-1", one), ("m-2", two)):
            effects = Effects({}, {}, [same, before])
            assert await stage.commit(member, delivery, name, effects) == Done()
        last = stage.out("Paid", b"last", qos=2)
        await stage.store(transport, stage.out("Charge", b"more", qos=2))
        (third,) = await stage.receive(member, 1)
        assert await stage.commit(member, third, "m-3", Effects({}, {}, [last])) == Done()
        assert await _bodies(stage, 3) == [b"before", b"same", b"last"]

    @law(qos=2, needs=[Capability.ATOMIC_PUBLISH, Ability.CUT])
    async def test_a_commit_that_is_cut_anywhere_publishes_once(self, stage: Stage) -> None:
        """Faults, cut at the k-th write, before or after the broker was given it: with the record
        or not at all, and trying again ends it."""
        proxy, url = await stage.proxy()
        transport = await stage.transport(url)
        source = stage.source("Charge", lease=60.0)
        publishes = ["Charge", "Paid"]
        await transport.prepare(stage.topology(source, publishes=publishes, qos=2), Mode.CREATE)
        for number, when in enumerate(("before", "after", "after")):
            member = await transport.subscribe(source)
            await stage.store(stage.anchor, stage.out("Charge", b"%d" % number, qos=2))
            (delivery,) = await stage.receive(member, 1)
            effects = Effects({}, {}, [stage.out("Paid", b"%d" % number, qos=2)])
            proxy.cut_at_write(1, "after" if when == "after" else "before")
            result: SettleResult = Unknown(CapabilityError("not tried yet"))
            while isinstance(result, Unknown):
                result = await stage.commit(member, delivery, f"m-{number}", effects)
                await stage.pass_time(0.1)
            assert result == Done()
            proxy.heal()
            await stage.wait(member.close())
        # Commits are one after the other; what each published may be handed on in any order.
        assert sorted(await _bodies(stage, 3)) == [b"0", b"1", b"2"]

    @law(qos=2, needs=[Capability.ATOMIC_PUBLISH, Ability.RESTART])
    async def test_what_a_commit_published_survives_its_publisher_and_a_restart(
        self, stage: Stage
    ) -> None:
        """Faults, SIGKILL and restart: what was committed arrives, once, though who committed it
        and the broker ended at that moment."""
        transport, member, (delivery,) = await _held(stage, 1)
        effects = Effects({}, {}, [stage.out("Paid", b"%d" % n, qos=2) for n in range(3)])
        assert await stage.commit(member, delivery, "m-1", effects) == Done()
        await transport.close()
        assert stage.harness.restart is not None
        await stage.harness.restart()
        back = await stage.transport()
        await stage.inbox(back, "Charge")  # somebody handles at QoS 2 again
        assert await _bodies(stage, 3, back) == [b"0", b"1", b"2"]


async def _held(stage: Stage, count: int) -> tuple[Transport, Subscription, Sequence[Delivery]]:
    """Return a transport, a member of `workers`, and so many deliveries in its hand."""
    transport = await stage.transport()
    source = stage.source("Charge")
    topology = stage.topology(source, publishes=["Charge", "Paid"], qos=2)
    await transport.prepare(topology, Mode.CREATE)
    member = await transport.subscribe(source)
    await stage.store(transport, *(stage.out("Charge", b"%d" % n, qos=2) for n in range(count)))
    return transport, member, await stage.receive(member, count)


async def _bodies(stage: Stage, count: int, via: Transport | None = None) -> list[bytes]:
    """Return what was published, once so many came: a broker may hand it on a little later."""
    reader = await stage.member(via or stage.anchor, "Paid", "readers", lease=60.0)
    found = [delivery.body for delivery in await stage.receive(reader, count)]
    await stage.nothing(reader, 0.2)
    return found


async def _handled(stage: Stage, bus: Bus, **counts: int) -> None:
    """Wait until the group has acknowledged so many of each type."""

    def enough() -> bool:
        books = bus.counts()
        return all(books[f"law/{name}"].get("ack", 0) >= n for name, n in counts.items())

    await stage.until(enough)


def _pass_on(bus: Bus, number: int) -> Heard:
    """Let the bus publish this number for each charge; return what comes of it."""

    @bus.handle(Charged)
    async def handle(_charged: Charged, context: Context) -> None:
        await context.transaction.publish(Refunded(number))

    return keep(bus, Refunded)


def _count_up(bus: Bus) -> Heard:
    """Let the bus add each charge to a balance and publish what it became."""

    @bus.handle(Charged)
    async def add(charged: Charged, context: Context) -> None:
        tx = context.transaction
        balance = int(await tx.read("balance") or b"0") + charged.number
        await asyncio.sleep(0)  # others read the same meanwhile
        tx.write("balance", b"%d" % balance)
        await tx.publish(Refunded(balance))

    return keep(bus, Refunded)
