"""Consumer groups in memory: what waits, who has what in hand, what is due later."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from catga.spi import Clock, Delivery, Source, Timer

if TYPE_CHECKING:
    from catga_inmemory.log import Entry

__all__ = ["Group", "GroupMember", "Hand"]

Hand: TypeAlias = "dict[Entry, Delivery]"
"""What one member has in hand, in the order in which its leases end."""


class GroupMember:
    """The part of a subscription a group needs to know."""

    def wake(self) -> int:
        """Say that there is something to take; return how much it has room for, 0 when it was not
        waiting for that."""
        raise NotImplementedError


class Group:
    """One consumer group on one type."""

    def __init__(self, clock: Clock, source: Source) -> None:
        self._clock = clock
        self.lease = source.lease
        self.ready: deque[Entry] = deque()
        self.members: list[GroupMember] = []
        self._attempts: dict[Entry, int] = {}
        """The next attempts of those in `ready` of which it is not the first."""
        self._left: Hand = {}
        """What members had that left."""
        self._hands = [self._left]
        self._timer: Timer | None = None
        self._delayed: dict[Timer, Entry] = {}

    def unfinished(self) -> list[Entry]:
        """Return what it has neither handled nor parked."""
        in_hand = [entry for hand in self._hands for entry in hand]
        return [*self.ready, *in_hand, *self._delayed.values()]

    def hand(self) -> Hand:
        """Return the place for what a new member takes."""
        hand: Hand = {}
        self._hands.append(hand)
        return hand

    def leave(self, hand: Hand) -> Hand:
        """A member takes nothing more: return where what it has stays until its leases end."""
        self._hands = [other for other in self._hands if other is not hand]
        both = [*self._left.items(), *hand.items()]
        self._left.clear()
        self._left.update(sorted(both, key=lambda pair: pair[1].lease_until))
        return self._left

    def add(self, entries: Sequence[Entry]) -> None:
        """Take on new entries."""
        for entry in entries:
            entry.open_groups += 1
            if entry.attempts:
                self._attempts[entry] = entry.attempts + 1
        self.ready.extend(entries)
        self.call()

    def push(self, entry: Entry, attempt: int) -> None:
        """Make an entry available again."""
        self._attempts[entry] = attempt
        self.ready.append(entry)
        self.call()

    def call(self) -> None:
        """Wake as many members as are needed for what is ready."""
        left = len(self.ready)
        for member in self.members:
            if left <= 0:
                return
            left -= member.wake()

    def take(self, limit: int, hand: Hand) -> list[Delivery]:
        """Hand out up to `limit` entries, each under a fresh lease."""
        until = self._clock.monotonic() + self.lease
        ready, attempts = self.ready, self._attempts
        deliveries: list[Delivery] = []
        for _ in range(min(limit, len(ready))):
            entry = ready.popleft()
            attempt = attempts.pop(entry, 1) if attempts else 1
            delivery = hand[entry] = Delivery(
                entry.subject,
                entry.body,
                attempt,
                entry.sequence,
                until,
                entry,
                replays=entry.replays,
            )
            deliveries.append(delivery)
        if deliveries and self._timer is None:
            self._timer = self._clock.call_later(self.lease, self._watch)
        return deliveries

    def holds(self, hand: Hand, delivery: Delivery, now: float) -> bool:
        """Say whether a delivery is still its receiver's."""
        return hand.get(delivery.token) is delivery and delivery.lease_until > now

    def give_back(self, entry: Entry, attempt: int, delay: float) -> None:
        """Deliver what was taken out of a hand again after `delay` seconds, as this attempt."""
        if delay <= 0:
            self.push(entry, attempt)
            return

        def due() -> None:
            del self._delayed[timer]
            self.push(entry, attempt)

        timer = self._clock.call_later(delay, due)
        self._delayed[timer] = entry

    def extend(self, hand: Hand, delivery: Delivery, now: float) -> bool:
        """Renew the lease. False when it is gone."""
        held = self.holds(hand, delivery, now)
        if held:
            delivery.lease_until = now + self.lease
            hand[delivery.token] = hand.pop(delivery.token)  # behind all that end before it
        return held

    def close(self) -> None:
        """End the group: nothing waits for it any more."""
        for timer in (*self._delayed, *([self._timer] if self._timer else ())):
            timer.cancel()
        for entry in self.unfinished():
            entry.finish_one()
        for hand in self._hands:
            hand.clear()
        self.ready.clear()
        self._delayed.clear()

    def _watch(self) -> None:
        """Take over what has expired and sleep until the next lease can end."""
        self._timer = None
        now = self._clock.monotonic()
        ends: list[float] = []
        expired: list[Delivery] = []
        for hand in self._hands:
            late = 0
            for delivery in hand.values():
                if delivery.lease_until > now:
                    ends.append(delivery.lease_until)
                    break
                late += 1
            expired += [hand.pop(entry) for entry in list(hand)[:late]]
        if ends:
            self._timer = self._clock.call_later(min(ends) - now, self._watch)
        for delivery in expired:
            self.push(delivery.token, delivery.attempt + 1)
