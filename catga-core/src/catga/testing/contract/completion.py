"""Completion records: what makes a redelivery harmless, and nothing else."""

from __future__ import annotations

import asyncio

import msgspec

from catga.model.capability import Capability
from catga.spi import Commit, Completion, Done, Kind, Lost, Record
from catga.testing.contract.messages import Charged, keep
from catga.testing.harness import law
from catga.testing.stage import Stage
from catga.testing.tap import Point

__all__ = ["CompletionContract"]

_IDS = ["m-1", "a.b.c", "*", ">", "a:b/c?d#e", "{x}", "=", "~" * 128, "M-1", "m-1%", "m-1 failed"]


class CompletionContract:
    """Laws of `InboxStore` and of the one-step commit."""

    @law(qos=2)
    async def test_a_record_is_there_once_written_and_not_before(self, stage: Stage) -> None:
        """QoS 2, third law: what completed within D is known, in the order it was asked for."""
        inbox = await stage.inbox(await stage.transport(), "Charge")
        keys = [stage.completion("Charge", message_id) for message_id in _IDS]
        assert await stage.wait(inbox.completed(keys)) == [False] * len(keys)
        odd = keys[1::2]
        records = [Record(key) for key in odd]
        assert await stage.wait(inbox.record(records)) == [Done()] * len(odd)
        assert await stage.wait(inbox.completed(keys)) == [key in odd for key in keys]
        assert await stage.wait(inbox.record(records)) == [Done()] * len(odd), "there before: done"
        assert await inbox.completed([]) == []
        assert await inbox.record([]) == []

    @law(qos=2)
    async def test_a_response_is_kept_with_its_record_and_stays_as_it_is(
        self, stage: Stage
    ) -> None:
        """QoS 2, sixth law: the response is kept with the record, byte for byte; who records the
        same completion later changes nothing."""
        inbox = await stage.inbox(await stage.transport(), "Charge")
        keys = [stage.completion("Charge", message_id) for message_id in _IDS]
        body = bytes(range(256)) * 64
        assert await stage.wait(inbox.responses(keys)) == [None] * len(keys)
        records = [Record(key, b"%d" % n + body) for n, key in enumerate(keys[1:])]
        assert await stage.wait(inbox.record([*records, Record(keys[0])])) == [Done()] * len(keys)
        again = [Record(key, b"other") for key in keys]
        assert await stage.wait(inbox.record(again)) == [Done()] * len(keys)
        kept = [None, *(record.response for record in records)]
        assert await stage.wait(inbox.responses(keys)) == kept
        assert await stage.wait(inbox.completed(keys)) == [True] * len(keys)
        assert await inbox.responses([]) == []

    @law(qos=2)
    async def test_a_record_outlasts_many_leases(self, stage: Stage) -> None:
        """QoS 2, third law: it is kept for D, not for as long as a delivery may take."""
        inbox = await stage.inbox(await stage.transport(), "Charge")
        key = stage.completion("Charge", "m-1")
        assert await stage.wait(inbox.record([Record(key, b"response")])) == [Done()]
        await stage.pass_time(4.0)
        assert await stage.wait(inbox.responses([key])) == [b"response"]

    @law(qos=2)
    async def test_a_record_holds_for_one_group_and_one_type(self, stage: Stage) -> None:
        """QoS 2, second law: the record says that this group completed this id."""
        inbox = await stage.inbox(await stage.transport(), "Charge", "Refund")
        key = stage.completion("Charge", "m-1")
        assert await stage.wait(inbox.record([Record(key)])) == [Done()]
        others: list[Completion] = [
            msgspec.structs.replace(key, group="audit"),
            msgspec.structs.replace(key, type="Refund"),
            msgspec.structs.replace(key, message_id="m-2"),
        ]
        assert await stage.wait(inbox.completed([*others, key])) == [False, False, False, True]

    @law(qos=2)
    async def test_a_record_is_shared_by_all_members_and_outlives_them(self, stage: Stage) -> None:
        """QoS 2, words: durable, shared by all processes of the group; a process-local set is
        not enough."""
        first, second = await stage.transport(), await stage.transport()
        key = stage.completion("Charge", "m-1")
        inbox = await stage.inbox(first, "Charge")
        assert await stage.wait(inbox.record([Record(key)])) == [Done()]
        assert await stage.wait((await stage.inbox(second, "Charge")).completed([key])) == [True]
        await first.close()
        await second.close()
        third = await stage.inbox(await stage.transport(), "Charge")
        assert await stage.wait(third.completed([key])) == [True]

    @law(qos=2)
    async def test_nothing_is_recorded_while_the_handler_runs(self, stage: Stage) -> None:
        """QoS 2, fourth law: never recorded before the handler succeeded; a bus that dies in
        mid-handler leaves no record, and another handles the message."""

        async def hang(_number: int, _attempt: int) -> None:
            await asyncio.Event().wait()

        transport = await stage.transport()
        inbox = await stage.inbox(transport, "Charged")
        first, second = stage.bus(), stage.bus()
        begun, heard = keep(first, Charged, hang), keep(second, Charged)
        key = stage.completion("Charged", "m-1", "law")
        async with stage.running(first):
            await first.publish(Charged(1), message_id="m-1")
            await stage.until(lambda: begun.calls)
            assert await stage.wait(inbox.completed([key])) == [False]
            await stage.wait(first.close())
        assert await stage.wait(inbox.completed([key])) == [False]
        async with stage.running(second):
            await stage.until(lambda: second.counts()["law/Charged"].get("ack"))
        assert heard.calls == [(1, 2)]
        assert await stage.wait(inbox.completed([key])) == [True]

    @law(qos=2)
    async def test_what_is_recorded_is_acknowledged_without_the_handler(self, stage: Stage) -> None:
        """QoS 2, third law: handler, then record, then acknowledgement: a crash between the last
        two costs no second run."""
        transport = await stage.transport()
        inbox = await stage.inbox(transport, "Charged")
        key = stage.completion("Charged", "m-1", "law")
        assert await stage.wait(inbox.record([Record(key)])) == [Done()]
        bus = stage.bus()
        heard = keep(bus, Charged)
        async with stage.running(bus):
            await bus.publish(Charged(1), message_id="m-1")
            await bus.send(Charged(2), to="law")
            await stage.until(lambda: bus.counts()["law/Charged"].get("ack") == 2)
        assert heard.calls == [(2, 1)]
        assert stage.tap.stored(Kind.DEAD) == []

    @law(qos=2)
    async def test_what_is_recorded_is_not_run_again_when_its_acknowledgement_is_late(
        self, stage: Stage
    ) -> None:
        """QoS 2, third law: the message comes again between the record and the acknowledgement,
        to the same member, where it waits for its own first delivery."""

        async def stand_still(point: Point) -> None:
            if point is Point.RECORDED:
                recorded.set()
                await goes_on.wait()

        recorded, goes_on = asyncio.Event(), asyncio.Event()
        stage.tap.at = stand_still
        bus = stage.bus(settings={"lease_limit": stage.lease})  # it is not renewed
        heard = keep(bus, Charged)
        async with stage.running(bus):
            await bus.publish(Charged(1))
            await stage.until(recorded.is_set)
            if Capability.COMMIT in bus.transport.capabilities:
                await stage.pass_time(5.0)  # it was acknowledged in the same step
            else:
                await stage.until(lambda: bus.counts()["law/Charged"]["received"] == 2)
            goes_on.set()
            await bus.publish(Charged(2))
            await stage.until(lambda: (2, 1) in heard.calls)
            await stage.until(lambda: bus.counts()["law/Charged"]["in-hand"] == 0)
        assert heard.calls == [(1, 1), (2, 1)]

    # ---- one step

    @law(qos=2, needs=[Capability.COMMIT])
    async def test_a_commit_records_and_acknowledges(self, stage: Stage) -> None:
        """QoS 2, second law: record and acknowledgement are written together, one by one."""
        transport = await stage.transport()
        inbox = await stage.inbox(transport, "Charge")
        member = await stage.member(transport, "Charge")
        await stage.store(transport, *(stage.out("Charge", b"%d" % n, qos=2) for n in range(20)))
        found = await stage.receive(member, 20)
        keys = [stage.completion("Charge", f"m-{place}") for place in range(20)]
        commits = [Commit(each, Record(key)) for each, key in zip(found, keys, strict=True)]
        done = await stage.wait(member.commit(commits))
        assert done == [Done()] * 20
        assert await stage.wait(inbox.completed(keys)) == [True] * 20
        assert await member.commit([]) == []
        other = await stage.member(await stage.transport(), "Charge")
        await stage.nothing(other, 3)

    @law(qos=2, needs=[Capability.COMMIT])
    async def test_a_commit_keeps_the_response(self, stage: Stage) -> None:
        """QoS 2, sixth law: written in the same step as record and acknowledgement."""
        transport = await stage.transport()
        inbox = await stage.inbox(transport, "Charge")
        member = await stage.member(transport, "Charge")
        await stage.store(transport, *(stage.out("Charge", b"%d" % n, qos=2) for n in range(2)))
        found = await stage.receive(member, 2)
        keys = [stage.completion("Charge", f"m-{place}") for place in range(2)]
        commits = [
            Commit(each, Record(key, response))
            for each, key, response in zip(found, keys, (b"\x00\r\n1", None), strict=True)
        ]
        assert await stage.wait(member.commit(commits)) == [Done()] * 2
        assert await stage.wait(inbox.responses(keys)) == [b"\x00\r\n1", None]

    @law(qos=2, needs=[Capability.COMMIT])
    async def test_a_commit_of_what_was_recorded_before_is_done(self, stage: Stage) -> None:
        """QoS 2, second law: the record is the fence; who comes second finds it there."""
        transport = await stage.transport()
        inbox = await stage.inbox(transport, "Charge")
        member = await stage.member(transport, "Charge")
        await stage.store(transport, stage.out("Charge", qos=2))
        key = stage.completion("Charge", "m-1")
        await stage.wait(inbox.record([Record(key)]))
        (delivery,) = await stage.receive(member, 1)
        assert await stage.wait(member.commit([Commit(delivery, Record(key))])) == [Done()]
        other = await stage.member(await stage.transport(), "Charge")
        await stage.nothing(other, 3)

    @law(qos=2, needs=[Capability.COMMIT])
    async def test_a_late_commit_is_lost_and_records_nothing(self, stage: Stage) -> None:
        """QoS 2, second law, and QoS 1, sixth law: an expired owner commits nothing, until the
        new one has."""
        transport = await stage.transport()
        inbox = await stage.inbox(transport, "Charge")
        late = await stage.member(transport, "Charge")
        await stage.store(transport, stage.out("Charge", qos=2))
        (held,) = await stage.receive(late, 1)
        await stage.wait(late.drain())
        owner = await stage.member(await stage.transport(), "Charge")
        (taken,) = await stage.receive(owner, 1)
        key = stage.completion("Charge", "m-1")
        assert await stage.wait(late.commit([Commit(held, Record(key))])) == [Lost()]
        assert await stage.wait(inbox.completed([key])) == [False]
        assert await stage.wait(owner.extend([taken])) == [Done()], "it is still the owner's"
        assert await stage.wait(owner.commit([Commit(taken, Record(key))])) == [Done()]
        assert await stage.wait(inbox.completed([key])) == [True]

    @law(qos=2)
    async def test_what_another_completed_while_it_waited_is_not_begun(self, stage: Stage) -> None:
        """QoS 2, third law: what has waited long is looked up once more before it is run: its
        lease may have ended unnoticed, and another member may be through with it."""

        async def wait(_number: int, _attempt: int) -> None:
            await goes_on.wait()

        goes_on = asyncio.Event()
        inbox = await stage.inbox(await stage.transport(), "Charged")
        bus = stage.bus(settings={"concurrency": 1})
        heard = keep(bus, Charged, wait)
        async with stage.running(bus):
            await bus.publish(Charged(0))
            await stage.until(lambda: heard.calls)
            behind = await bus.publish(Charged(1))
            await stage.until(lambda: bus.counts()["law/Charged"]["received"] == 2)
            await stage.pass_time(1.0)  # half a lease, which is renewed all the time
            key = stage.completion("Charged", behind.message_id, "law")
            assert await stage.wait(inbox.record([Record(key)])) == [Done()]
            goes_on.set()
            await stage.until(lambda: bus.counts()["law/Charged"].get("ack") == 2)
        assert heard.calls == [(0, 1)]
