"""The transport over NATS, wrong in one way each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import attrs
import msgspec
from msgspec.structs import replace

from catga.engine.intake import Intake
from catga.engine.work import Feed
from catga.errors import PublishRejected
from catga.session import Session
from catga.spi import (
    Ack,
    Commit,
    Delivery,
    Nack,
    Outgoing,
    Rejected,
    Settle,
    Settlement,
    SettleResult,
    Source,
)
from catga_nats import publishing, settling
from catga_nats.client import plain_frame
from catga_nats.later import Mover
from catga_nats.live import LiveSubscription
from catga_nats.mux import Missing
from catga_nats.outbox import in_batch
from catga_nats.overflow import Overflow
from catga_nats.pull import PullSubscription
from catga_nats.settling import Settler
from catga_nats.transactions import Message, TxStore
from catga_nats.wanted import Wants
from mutants.mutation import Base, mutant


@mutant(Base.NATS, Wants, "_kept", law="test_what_was_accepted_survives_a_restart_of_the_broker")
def memory_storage(real: Any) -> Any:
    """The streams live in the server's memory."""

    def kept(self: Wants, name: str, subjects: list[str]) -> dict[str, Any]:
        return {**real(self, name, subjects), "storage": "memory"}

    return kept


@mutant(Base.NATS, Wants, "_kept", law="test_a_full_broker_refuses_the_new_and_keeps_the_old")
def discard_old(real: Any) -> Any:
    """A full stream drops its oldest messages to make room."""

    def kept(self: Wants, name: str, subjects: list[str]) -> dict[str, Any]:
        return {**real(self, name, subjects), "discard": "old"}

    return kept


@mutant(
    Base.NATS,
    publishing,
    "stored_id",
    law="test_the_same_id_on_another_subject_is_stored_there_too",
)
def dedupe_without_the_subject_on_nats(real: Any) -> Any:
    """The header holds the bare id, and the window spans the whole stream."""

    def stored_id(outgoing: Outgoing) -> str:
        return outgoing.message_id

    return stored_id


@mutant(
    Base.NATS, Settler, "give_back", law="test_drain_gives_back_at_once_what_was_not_handed_out"
)
def loses_what_was_prefetched_on_drain_on_nats(real: Any) -> Any:
    """What was sent and not handed out is acknowledged when its member leaves."""

    async def give_back(self: Settler, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.token is not None:
                await self._connection.client.write([plain_frame(delivery.token, b"+ACK")])

    return give_back


@mutant(
    Base.NATS,
    settling,
    "ack_payload",
    law="test_a_nack_comes_again_as_the_next_attempt_and_not_before_its_delay",
)
def ignores_the_nack_delay_on_nats(real: Any) -> Any:
    """A nak carries no delay of its own."""

    def ack_payload(outcome: Settlement, version: tuple[int, int, int]) -> bytes:
        return bytes(real(Nack(0.0) if isinstance(outcome, Nack) else outcome, version))

    return ack_payload


@mutant(
    Base.NATS,
    PullSubscription,
    "receive",
    law="test_what_waited_in_the_client_is_ours_when_it_is_handed_out",
)
def hands_out_what_is_over_on_nats(real: Any) -> Any:
    """What was fetched waits without its lease being renewed, and is handed out all the same."""

    async def leave_alone() -> None:
        pass

    async def receive(self: PullSubscription, limit: int, max_wait: float) -> list[Delivery]:
        self._keep_waiting = leave_alone  # type: ignore[method-assign]  # wrong on purpose
        await self._ask_for_more()
        taken = await self._mailbox.receive(limit, max_wait)
        self._settler.hold(taken)
        return taken

    return receive


@mutant(
    Base.NATS,
    Settler,
    "settle",
    law="test_an_acknowledgement_that_never_arrives_is_not_told_as_done",
)
def confirms_what_it_has_only_sent_on_nats(real: Any) -> Any:
    """An acknowledgement that is to be confirmed counts as done once it has left."""

    async def settle(self: Settler, batch: Sequence[Settle]) -> list[SettleResult]:
        sent: list[SettleResult] = await real(
            self, [Settle(each.delivery, each.outcome) for each in batch]
        )
        return sent

    return settle


@mutant(Base.NATS, TxStore, "_messages", law="test_of_two_members_with_one_message_one_writes")
def commits_without_the_fence_on_nats(real: Any) -> Any:
    """The record is stored whether or not there is one already, and the effects with it."""

    def messages(self: TxStore, commit: Commit) -> list[Message]:
        (subject, body, _), *effects = real(self, commit)
        return [(subject, body, {}), *effects]

    return messages


@mutant(
    Base.NATS,
    TxStore,
    "_messages",
    law="test_a_conflict_writes_nothing_and_can_be_tried_again",
)
def expects_no_sequence(real: Any) -> Any:
    """Whoever commits last wins, whatever was read."""

    def messages(self: TxStore, commit: Commit) -> list[Message]:
        record, *effects = real(self, commit)
        return [record, *((subject, body, {}) for subject, body, _ in effects)]

    return messages


@mutant(
    Base.NATS,
    Wants,
    "_pull",
    law="test_a_message_that_ends_its_processes_is_parked_on_arrival",
)
def strands_past_max_deliver_on_nats(real: Any) -> Any:
    """The server's own limit of deliveries is the attempts of the bus."""

    def pull(self: Wants, source: Source, name: str) -> dict[str, Any]:
        return {**real(self, source, name), "max_deliver": max(source.attempts, 1)}

    return pull


@mutant(
    Base.NATS,
    Overflow,
    "relieve",
    law="test_many_failing_messages_do_not_slow_the_good_ones",
)
def leaves_every_retry_unsettled_on_nats(real: Any) -> Any:
    """Delayed retries stay where they are, and fill up what a group may hold."""

    async def relieve(self: Overflow, batch: Sequence[Settle]) -> Sequence[Settle]:
        return batch

    return relieve


@mutant(Base.NATS, Overflow, "_copy", law="test_however_many_wait_each_attempt_counts")
def forgets_the_attempts_of_a_moved_retry_on_nats(real: Any) -> Any:
    """The copy that goes on instead begins anew."""

    def copy(self: Overflow, delivery: Delivery, delay: float) -> Outgoing:
        moved: Outgoing = real(self, delivery, delay)
        return replace(moved, attempts=0)

    return copy


@mutant(
    Base.NATS,
    publishing,
    "scheduled",
    law="test_a_delayed_message_does_not_come_before_its_time",
)
def delivers_too_early_on_nats(real: Any) -> Any:
    """A schedule is set to half a second before its time."""

    def scheduled(outgoing: Outgoing, when: datetime, headers: dict[str, str]) -> str:
        return str(real(outgoing, when - timedelta(seconds=0.5), headers))

    return scheduled


@mutant(Base.NATS, TxStore, "commit", law="test_a_conflict_publishes_nothing")
def publishes_before_it_commits_on_nats(real: Any) -> Any:
    """What a commit publishes lies ready before the batch with the record is stored."""

    async def commit(self: TxStore, batch: Sequence[Commit]) -> list[SettleResult]:
        bare = []
        for each in batch:
            effects = each.effects
            for subject, body, headers in map(in_batch, effects.outgoing if effects else ()):
                await self._connection.client.send(subject, body, "", headers)
            without = effects and attrs.evolve(effects, outgoing=())
            bare.append(msgspec.structs.replace(each, effects=without))
        results: list[SettleResult] = await real(self, bare)
        return results

    return commit


@mutant(
    Base.NATS,
    Mover,
    "_carry",
    law="test_what_a_commit_published_survives_its_publisher_and_a_restart",
)
def carries_nothing_on(real: Any) -> Any:
    """What a commit published is taken for carried, and removed."""

    async def carry(self: Mover, batch: Sequence[Delivery]) -> list[Settle]:
        return [Settle(delivery, Ack(), confirm=True) for delivery in batch]

    return carry


@mutant(
    Base.NATS,
    Intake,
    "_reopen",
    law="test_what_is_deleted_at_run_time_is_made_again_and_the_bus_goes_on",
)
def leaves_a_deleted_consumer_gone(real: Any) -> Any:
    """A consumer that somebody deleted is not made again."""

    async def reopen(self: Intake, feed: Feed, reason: Exception) -> None:
        del feed, reason
        await self._s.clock.sleep(0.1)

    return reopen


@mutant(
    Base.NATS,
    publishing,
    "publish_missing",
    law="test_a_leader_that_is_killed_costs_nothing_accepted",
)
def takes_silence_for_a_refusal_on_nats(real: Any) -> Any:
    """What a dying leader did not answer is told as refused, and not repeated."""

    def refused(subject: str, missing: Missing) -> Rejected:
        return Rejected(PublishRejected(f"{subject}: {missing.value}"))

    return refused


@mutant(
    Base.NATS,
    Session,
    "_be_exact",
    law="test_a_group_that_expected_less_commits_a_stricter_message_once",
)
def expects_what_it_was_started_with(real: Any) -> Any:
    """For a message that is stricter than its type nothing is made sure of."""

    async def be_exact(self: Session, source: Source) -> None:
        return

    return be_exact


@mutant(
    Base.NATS,
    LiveSubscription,
    "start",
    law="test_a_live_listener_goes_on_after_its_connection_was_cut",
)
def subscribes_again_after_a_reconnect(real: Any) -> Any:
    """Though the client has done so by itself: each live message comes twice from then on."""

    async def start(self: LiveSubscription) -> None:
        await real(self)
        self._connection.on_reconnected.append(partial(real, self))

    return start
