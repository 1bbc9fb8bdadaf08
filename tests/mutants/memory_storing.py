"""Storing in memory, wrong in one way each: publishing, its dedupe, the completion records."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from catga.ground.ids import new_message_id
from catga.spi import (
    Clock,
    Commit,
    Completion,
    Effects,
    Outgoing,
    PublishResult,
    Receipt,
    Record,
    Rejected,
    SettleResult,
)
from catga_inmemory import inbox
from catga_inmemory.effects import MemoryEffects
from catga_inmemory.inbox import MemoryInbox, RecordTable
from catga_inmemory.log import Stream
from catga_inmemory.subscriptions import LogSubscription
from catga_inmemory.transport import MemoryTransport
from mutants.mutation import Base, mutant

_Append = Callable[[Stream, Sequence[Outgoing]], list[Receipt]]


@mutant(
    Base.MEMORY,
    Stream,
    "append",
    law="test_one_id_is_stored_once_and_the_repeat_names_the_original",
)
def no_message_id_on_publish(real: _Append) -> _Append:
    """The broker sees another id each time, so it knows no duplicate."""

    def append(self: Stream, batch: Sequence[Outgoing]) -> list[Receipt]:
        return real(self, [replace(each, message_id=new_message_id()) for each in batch])

    return append


@mutant(Base.MEMORY, Stream, "append", law="test_a_body_of_one_mebibyte_comes_unchanged")
def cuts_large_bodies(real: _Append) -> _Append:
    """What is longer than 60 000 bytes ends there."""

    def append(self: Stream, batch: Sequence[Outgoing]) -> list[Receipt]:
        return real(self, [replace(each, body=each.body[:60_000]) for each in batch])

    return append


@mutant(Base.MEMORY, Stream, "append", law="test_the_same_body_under_another_id_is_another_message")
def dedupes_on_the_body(real: _Append) -> _Append:
    """Equal bodies count as one message."""

    def append(self: Stream, batch: Sequence[Outgoing]) -> list[Receipt]:
        return real(self, [replace(each, message_id=each.body.hex()) for each in batch])

    return append


@mutant(
    Base.MEMORY, Stream, "append", law="test_the_same_id_on_another_subject_is_stored_there_too"
)
def dedupe_without_the_subject(real: _Append) -> _Append:
    """One id is stored once, wherever it is sent to."""

    def append(self: Stream, batch: Sequence[Outgoing]) -> list[Receipt]:
        receipts = []
        for outgoing in batch:
            known = {entry.message_id: entry for entry in self.entries.values()}
            entry = known.get(outgoing.message_id)
            if entry is None:
                receipts += real(self, [outgoing])
            else:
                receipts.append(Receipt(outgoing.message_id, entry.sequence, duplicate=True))
        return receipts

    return append


@mutant(Base.MEMORY, Stream, "append", law="test_what_is_not_settled_is_never_trimmed")
def trims_unsettled_entries_in_memory(real: _Append) -> _Append:
    """The log keeps its last ten entries, settled or not."""

    def append(self: Stream, batch: Sequence[Outgoing]) -> list[Receipt]:
        receipts = real(self, batch)
        for sequence in list(self.entries)[:-10]:
            gone = self.entries.pop(sequence)
            self._by_age.remove(gone)
            for group in self.groups.values():
                group.ready = deque(entry for entry in group.ready if entry is not gone)
        return receipts

    return append


@mutant(
    Base.MEMORY, MemoryInbox, "__init__", law="test_what_the_group_completed_is_not_handled_again"
)
def record_in_process_memory(real: Any) -> Any:
    """Completion records are this process's own."""

    def init(self: MemoryInbox, table: RecordTable, clock: Clock) -> None:
        real(self, RecordTable(), clock)

    return init


@mutant(Base.MEMORY, inbox, "_record_key", law="test_another_group_handles_it_nevertheless")
def record_without_the_group(real: Any) -> Any:
    """What one group completed counts as completed by all."""

    def record_key(key: Completion) -> tuple[str, str, str, str]:
        return (key.namespace, "", key.type, key.message_id)

    return record_key


@mutant(
    Base.MEMORY, MemoryTransport, "publish", law="test_a_receipt_names_the_copy_that_is_delivered"
)
def reports_a_batch_published_before_it_is(real: Any) -> Any:
    """The receipt comes first; a second later it is stored, if the sender is still there."""

    async def publish(self: MemoryTransport, batch: Sequence[Outgoing]) -> Sequence[PublishResult]:
        broker = self._broker
        if broker is None or not batch[0].subject.durable:
            results: Sequence[PublishResult] = await real(self, batch)
            return results

        def later() -> None:
            if self._broker is not None:
                for outgoing in batch:
                    self._broker.store([outgoing])

        broker.clock.call_later(1.0, later)
        return [Receipt(outgoing.message_id, "0") for outgoing in batch]

    return publish


@mutant(
    Base.MEMORY,
    MemoryTransport,
    "publish",
    law="test_a_closed_transport_refuses_instead_of_keeping_it",
)
def swallows_a_publish_error(real: Any) -> Any:
    """What was refused is reported as published."""

    async def publish(self: MemoryTransport, batch: Sequence[Outgoing]) -> Sequence[PublishResult]:
        results = await real(self, batch)
        return [
            Receipt(outgoing.message_id) if isinstance(result, Rejected) else result
            for outgoing, result in zip(batch, results, strict=True)
        ]

    return publish


@mutant(Base.MEMORY, MemoryInbox, "note", law="test_a_record_outlasts_many_leases")
def short_record(real: Any) -> Any:
    """A completion is forgotten after two seconds."""

    def note(self: MemoryInbox, record: Record, now: float) -> None:
        kept, self.ttl = self.ttl, 2.0
        real(self, record, now)
        self.ttl = kept

    return note


@mutant(
    Base.MEMORY,
    LogSubscription,
    "_commit_one",
    law="test_of_two_members_with_one_message_one_writes",
)
def two_step_commit(real: Any) -> Any:
    """The effects are written first, then record and acknowledgement."""

    def commit_one(self: LogSubscription, commit: Commit, now: float) -> SettleResult:
        if commit.effects is not None:
            self._broker.effects.apply(commit.effects)
        bare = msgspec.structs.replace(commit, effects=None)
        result: SettleResult = real(self, bare, now)
        return result

    return commit_one


@mutant(Base.MEMORY, LogSubscription, "_commit_one", law="test_a_conflict_publishes_nothing")
def publishes_what_conflicts(real: Any) -> Any:
    """What a commit publishes is stored before it is known whether it can be committed."""

    def commit_one(self: LogSubscription, commit: Commit, now: float) -> SettleResult:
        for outgoing in () if commit.effects is None else commit.effects.outgoing:
            self._broker.store([outgoing])
        result: SettleResult = real(self, commit, now)
        return result

    return commit_one


@mutant(Base.MEMORY, MemoryEffects, "fits", law="test_every_effect_is_there_exactly_once")
def compares_no_version(real: Any) -> Any:
    """Whoever commits last wins, whatever was read."""

    def fits(self: MemoryEffects, effects: Effects) -> bool:
        return True

    return fits


@mutant(
    Base.MEMORY,
    Stream,
    "_trim",
    law="test_long_after_the_window_the_repeat_names_the_original",
)
def forgets_what_it_was_to_know_for_ever(real: Any) -> Any:
    """With what is trimmed goes its id, also where ids are kept for ever."""

    def trim(self: Stream, now: float) -> None:
        before, self.dedupe_window = self.dedupe_window, min(self.dedupe_window, 1.0)
        real(self, now)
        self.dedupe_window = before

    return trim
