"""The transport in memory, wrong in one way each: `real` is the right part, what is returned stands
in its place."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from catga.spi import (
    Ack,
    Delivery,
    Done,
    Outgoing,
    Settlement,
    SettleResult,
    Source,
    Start,
)
from catga_inmemory.broker import LiveListener, MemoryBroker
from catga_inmemory.groups import Group, Hand
from catga_inmemory.log import Entry, Stream
from catga_inmemory.subscriptions import LogSubscription
from mutants.mutation import Base, mutant

_Declare = Callable[[Stream, Source], Group]
_Receive = Callable[[LogSubscription, int, float], Any]


@mutant(
    Base.MEMORY,
    Group,
    "give_back",
    law="test_a_nack_comes_again_as_the_next_attempt_and_not_before_its_delay",
)
def no_redelivery_on_nack(real: Any) -> Any:
    """What is given back is settled for good."""

    def give_back(self: Group, entry: Entry, attempt: int, delay: float) -> None:
        entry.finish_one()

    return give_back


@mutant(
    Base.MEMORY,
    Group,
    "give_back",
    law="test_a_nack_comes_again_as_the_next_attempt_and_not_before_its_delay",
)
def ignores_the_nack_delay(real: Any) -> Any:
    """What is given back comes again at once."""

    def give_back(self: Group, entry: Entry, attempt: int, delay: float) -> None:
        real(self, entry, attempt, 0.0)

    return give_back


@mutant(
    Base.MEMORY,
    Stream,
    "declare",
    law="test_what_was_published_before_the_first_start_is_delivered",
)
def group_created_at_the_end_of_the_stream(real: _Declare) -> _Declare:
    """A new group gets only what is published after it."""

    def declare(self: Stream, source: Source) -> Group:
        return real(self, attrs.evolve(source, start=Start.NEW))

    return declare


@mutant(
    Base.MEMORY,
    Stream,
    "declare",
    law="test_every_group_gets_everything_whatever_others_did_with_it",
)
def groups_that_share_a_durable(real: _Declare) -> _Declare:
    """Two groups are one group at the broker."""

    def declare(self: Stream, source: Source) -> Group:
        return real(self, attrs.evolve(source, group="everybody"))

    return declare


@mutant(
    Base.MEMORY,
    LogSubscription,
    "_settle_one",
    law="test_every_group_gets_everything_whatever_others_did_with_it",
)
def one_groups_ack_removes_anothers_message(real: Any) -> Any:
    """What one group acknowledged no other group gets any more."""

    def settle_one(
        self: LogSubscription, delivery: Delivery, outcome: Settlement, now: float
    ) -> SettleResult:
        done: SettleResult = real(self, delivery, outcome, now)
        if isinstance(done, Done) and isinstance(outcome, Ack):
            for group in self._stream.groups.values():
                group.ready = deque(entry for entry in group.ready if entry is not delivery.token)
        return done

    return settle_one


@mutant(
    Base.MEMORY, Group, "holds", law="test_a_late_settlement_is_lost_and_leaves_the_new_owner_alone"
)
def takes_a_lease_back_from_its_new_owner(real: Any) -> Any:
    """Who let a lease expire still holds it, whoever works on the message by now."""

    def holds(self: Group, hand: Hand, delivery: Delivery, now: float) -> bool:
        return hand.get(delivery.token) is delivery or delivery.lease_until <= now

    return holds


@mutant(
    Base.MEMORY, Group, "_watch", law="test_what_a_dead_member_held_is_taken_over_within_the_lease"
)
def never_takes_over_from_a_dead_member(real: Any) -> Any:
    """What a member died with stays with it."""

    def watch(self: Group) -> None:
        pass

    return watch


@mutant(
    Base.MEMORY,
    MemoryBroker,
    "_shares",
    law="test_of_three_members_of_a_group_one_gets_each_message",
)
def the_third_member_gets_copies(real: Any) -> Any:
    """A group shares at QoS 0, but for its third member, which gets everything besides."""

    def shares(self: MemoryBroker, batch: Sequence[Outgoing]) -> list[Any]:
        subject, seen = batch[0].subject, Counter[str]()
        found = list(real(self, batch))
        for listener in self._live.get((subject.namespace, subject.type), ()):
            seen[listener.group] += 1
            if listener.group and seen[listener.group] == 3:
                found.append((listener, batch))
        return found

    return shares


@mutant(Base.MEMORY, Group, "take", law="test_a_small_window_lets_everything_through")
def drops_on_a_full_buffer(real: Any) -> Any:
    """What the reader has no room for is dropped."""

    def take(self: Group, limit: int, hand: Hand) -> list[Delivery]:
        taken: list[Delivery] = real(self, limit, hand)
        self.ready.clear()
        return taken

    return take


@mutant(
    Base.MEMORY,
    LiveListener,
    "offer",
    law="test_a_slow_live_listener_loses_what_does_not_fit_and_says_so",
)
def drops_in_silence_at_qos_0(real: Any) -> Any:
    """A slow listener misses messages, and nobody says so."""

    def offer(self: LiveListener, batch: Sequence[Outgoing]) -> int:
        real(self, batch)
        return 0

    return offer


@mutant(
    Base.MEMORY, Group, "take", law="test_a_handler_that_raises_gets_it_again_as_the_next_attempt"
)
def counts_attempts_from_0(real: Any) -> Any:
    """The first delivery is attempt 0."""

    def take(self: Group, limit: int, hand: Hand) -> list[Delivery]:
        again = set(self._attempts)
        found: list[Delivery] = real(self, limit, hand)
        for delivery in found:
            if delivery.token not in again:
                delivery.attempt = 0
        return found

    return take


@mutant(
    Base.MEMORY,
    LogSubscription,
    "receive",
    law="test_a_nack_comes_again_as_the_next_attempt_and_not_before_its_delay",
)
def acks_on_receipt(real: _Receive) -> Any:
    """What is handed out is settled: the broker forgets it before anybody handled it."""

    async def receive(self: LogSubscription, limit: int, max_wait: float) -> list[Delivery]:
        found: list[Delivery] = await real(self, limit, max_wait)
        for delivery in found:
            self._settle_one(delivery, Ack(), self._clock.monotonic())
        return found

    return receive
