"""The transport over Redis, wrong in one way each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import attrs

from catga.errors import CatgaError
from catga.spi import Done, Outgoing, PublishResult, Receipt, SettleResult, Unknown
from catga_redis import committing, groups, later, settling, streams, trimming
from catga_redis.errors import unconfirmed
from catga_redis.names import effect_key
from catga_redis.publisher import Publisher
from catga_redis.scripts import Script
from catga_redis.session import Session
from catga_redis.settling import Settler, Token
from catga_redis.wire import Wire, pack_command
from mutants.mutation import Base, mutant


def _changed(script: Script, right: bytes, wrong: bytes) -> Script:
    assert right in script.source, f"{right!r} is not in the script any more"
    return Script(script.source.replace(right, wrong))


@mutant(
    Base.REDIS, Publisher, "_store_once", law="test_a_publish_that_is_cut_anywhere_is_stored_once"
)
def sets_the_dedupe_key_then_adds(real: Any) -> Any:
    """The id is noted in one step and the message stored in a second one."""

    async def store_once(
        self: Publisher, batch: Sequence[Outgoing], indexes: Sequence[int], results: list[Any]
    ) -> None:
        window = self._session.window_ms
        for index in indexes:
            out = batch[index]
            stream, seen = self._keys_of(out.subject)
            wire = self._session.line(stream)
            key = seen + out.message_id.encode()
            try:
                if await wire.call(b"SET", key, b"0-0", b"NX", b"PX", window) is None:
                    known = (await wire.call(b"GET", key)).decode()
                    results[index] = Receipt(out.message_id, known, duplicate=True)
                    continue
                name = await wire.call(b"XADD", stream, b"*", b"b", out.body)
                await wire.call(b"SET", key, name, b"PX", window)
                results[index] = Receipt(out.message_id, name.decode())
            except CatgaError as error:
                results[index] = unconfirmed(error)

    return store_once


@mutant(Base.REDIS, Settler, "commit", law="test_a_completion_that_never_arrived_is_repeated")
def takes_a_lost_connection_for_done(real: Any) -> Any:
    """A completion that nobody answered is told as done."""

    async def commit(self: Settler, work: Sequence[Any]) -> list[SettleResult]:
        results = await real(self, work)
        return [Done() if isinstance(each, Unknown) else each for each in results]

    return commit


@mutant(
    Base.REDIS, Wire, "_detach", law="test_what_was_sent_on_a_broken_connection_is_not_sent_again"
)
def leaves_the_clients_own_retry_on(real: Any) -> Any:
    """What was sent on a broken connection is sent once more on the next one."""

    async def detach(self: Wire, error: CatgaError) -> None:
        waiting = [] if self._closed else list(self._waiting)
        for request in waiting:
            self._waiting.remove(request)
        await real(self, error)

        async def send_again() -> None:
            await self.up.wait()
            self._waiting.extend(waiting)
            self._output.extend(waiting)
            self._has_output.set()

        self._runtime.spawn(send_again(), "what the client sends again by itself")

    return detach


@mutant(Base.REDIS, Publisher, "_append_command", law="test_what_is_not_settled_is_never_trimmed")
def trims_unsettled_entries(real: Any) -> Any:
    """A stream keeps its last ten entries, settled or not."""

    def append_command(self: Publisher, out: Outgoing) -> bytes:
        stream = self._keys_of(out.subject)[0]
        return pack_command((b"XADD", stream, b"MAXLEN", b"10", b"*", b"b", out.body))

    return append_command


@mutant(
    Base.REDIS,
    streams,
    "RECLAIM",
    law="test_what_a_dead_member_held_is_taken_over_within_the_lease",
)
def never_claims_a_dead_members_entries(real: Any) -> Any:
    """Only what was given back is looked for, not what somebody died with."""
    return _changed(real, b"for _ = 1, 10 do", b"for _ = 1, 0 do")


@mutant(Base.REDIS, groups, "FORGET", law="test_close_with_unsettled_deliveries_loses_none")
def deletes_a_consumer_with_pending_entries(real: Any) -> Any:
    """A member that leaves is removed with all that it, or nobody, still holds."""
    return _changed(real, b"c.pending == 0 and", b"")


@mutant(
    Base.REDIS,
    settling,
    "EXTEND",
    law="test_a_late_settlement_is_lost_and_leaves_the_new_owner_alone",
)
def takes_a_lease_back_from_its_new_owner_on_redis(real: Any) -> Any:
    """An extension claims the entry, whoever has it by now."""
    return _changed(
        real, b"if held(KEYS[1], ARGV[1], ARGV[2], ARGV[i], ARGV[i + 1]) then", b"if true then"
    )


@mutant(Base.REDIS, trimming, "TRIM", law="test_what_is_not_settled_is_never_trimmed")
def trims_by_age_alone(real: Any) -> Any:
    """What is old enough goes, whoever still waits for it."""
    return _changed(real, b"if less(old, cut) then cut = old end", b"cut = old")


@mutant(Base.REDIS, Settler, "park", law="test_a_late_parking_is_lost_and_stores_nothing")
def settles_before_it_parks_on_redis(real: Any) -> Any:
    """The original is acknowledged first, and its dead letter stored in a second step."""

    async def park(self: Settler, work: Sequence[tuple[Token, Outgoing]]) -> list[SettleResult]:
        results = await self.acknowledge([token for token, _ in work], confirm=True)
        await Publisher(self._session).publish([letter for _, letter in work])
        return results

    return park


@mutant(Base.REDIS, settling, "PARK", law="test_a_late_parking_is_lost_and_stores_nothing")
def parks_what_another_member_holds(real: Any) -> Any:
    """Nobody asks who has the delivery by now."""
    right = b"if held(KEYS[1], ARGV[1], ARGV[2], id, count) then"
    return _changed(real, right, b"if true then")


@mutant(Base.REDIS, streams, "RECLAIM", law="test_a_delay_longer_than_the_lease_is_kept")
def steals_what_was_given_back_for_later(real: Any) -> Any:
    """What is idle is taken over, whether or not its time has come."""
    return _changed(real, b" or redis.call('ZSCORE', retry, p[1])", b"")


@mutant(
    Base.REDIS,
    streams,
    "RECLAIM",
    law="test_who_keeps_its_messages_for_a_shorter_time_takes_none_before_its_time",
)
def takes_by_its_own_lease(real: Any) -> Any:
    """What is idle for longer than the lease of whoever looks is taken, whoever has it."""
    return _changed(real, b"lease and p[3] < tonumber(lease)", b"false")


@mutant(Base.REDIS, later, "STORE", law="test_a_delayed_message_does_not_come_before_its_time")
def delivers_what_is_delayed_at_once(real: Any) -> Any:
    """What has a time of its own goes to the stream like everything else."""
    return _changed(real, b"if due <= now then", b"if true then")


@mutant(Base.REDIS, later, "STORE", law="test_a_delayed_message_is_stored_once")
def stores_a_delayed_message_twice(real: Any) -> Any:
    """The id of what waits is not looked up."""
    return _changed(
        real, b"local name = once and redis.call('GET', KEYS[i])", b"local name = false"
    )


@mutant(
    Base.REDIS,
    committing,
    "COMMIT_EFFECTS",
    law="test_of_two_members_with_one_message_one_writes",
)
def commits_without_the_fence(real: Script) -> Script:
    """Effects are written whether or not the completion was recorded before."""
    return _changed(real, b"redis.call('EXISTS', KEYS[2]) == 1", b"false")


@mutant(
    Base.REDIS,
    committing,
    "COMMIT_EFFECTS",
    law="test_a_conflict_writes_nothing_and_can_be_tried_again",
)
def compares_no_version_in_the_script(real: Script) -> Script:
    """Whoever commits last wins, whatever was read."""
    return _changed(real, b"then return 2 end", b"then end")


@mutant(Base.REDIS, settling, "commit_effects", law="test_a_late_commit_publishes_nothing")
def publishes_before_it_commits_on_redis(real: Any) -> Any:
    """What a commit publishes is stored in a step of its own, before the script."""

    async def commit_effects(session: Session, *rest: Any) -> SettleResult:
        effects = rest[-1].effects
        await Publisher(session).publish(effects.outgoing)
        bare = attrs.evolve(rest[-1], effects=attrs.evolve(effects, outgoing=()))
        result: SettleResult = await real(session, *rest[:-1], bare)
        return result

    return commit_effects


@mutant(
    Base.REDIS, settling, "commit_effects", law="test_of_two_members_with_one_message_one_writes"
)
def two_step_commit_on_redis(real: Any) -> Any:
    """Effects are written in one step, record and acknowledgement in a second one."""

    async def commit_effects(session: Session, *rest: Any) -> SettleResult:
        effects = rest[-1].effects
        for key, value in effects.writes.items():
            name = effect_key(key)
            await session.line(name).call(b"SET", name, value or b"")
        bare = attrs.evolve(rest[-1], effects=attrs.evolve(effects, writes={}))
        result: SettleResult = await real(session, *rest[:-1], bare)
        return result

    return commit_effects


@mutant(
    Base.REDIS,
    Publisher,
    "publish",
    law="test_a_cancelled_publish_is_cancelled_and_leaves_the_rest_usable",
)
def a_begun_publish_swallows_its_cancellation(real: Any) -> Any:
    """Once it has begun, it goes on to its end and returns as if nobody had cancelled it."""

    async def publish(self: Publisher, batch: Sequence[Outgoing]) -> list[PublishResult]:
        begun: asyncio.Future[list[PublishResult]] = asyncio.ensure_future(real(self, batch))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(begun)
        return await begun

    return publish
