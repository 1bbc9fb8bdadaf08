"""Discovery, wrong in one way each: in memory, in what all transports share, and on the brokers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs

from catga.engine import membership
from catga.engine.discovery import Discovery
from catga.engine.membership import Watch
from catga.errors import CatgaError
from catga.ground.ids import new_instance
from catga.model.node import ChangeKind, NodeChange, NodeRecord
from catga.session import Session
from catga.spi import Sighting, Snapshot
from catga_inmemory.discovery import MemoryNodes, NodeTable
from catga_nats import discovery as nats_discovery
from catga_nats.discovery import KvNodes
from catga_redis import discovery as redis_discovery
from catga_redis.scripts import Script
from mutants.mutation import Base, mutant

_GHOST = 1000.0


@mutant(Base.NODES, MemoryNodes, "renew", law="test_a_stale_owners_renewal_is_refused")
def accepts_the_renewal_of_a_stale_owner(real: Any) -> Any:
    """A heartbeat writes the record, whoever has the id by now."""

    async def renew(self: MemoryNodes, record: NodeRecord) -> bool:
        self._table().write(record)
        return True

    return renew


@mutant(Base.NODES, NodeTable, "snapshot", law="test_no_ghost_is_seen_after_its_lease")
def shows_a_ghost_after_its_lease(real: Any) -> Any:
    """Who has not left is there, however long ago its lease has ended."""

    def snapshot(self: NodeTable) -> Snapshot:
        there = {
            name: Sighting(
                attrs.evolve(seat.record.node, last_seen=seat.seen), seat.record.owner, _GHOST
            )
            for name, seat in self._seats.items()
            if not seat.left
        }
        return Snapshot(there, frozenset(self._seats.keys() - there.keys()))

    return snapshot


@mutant(Base.NODES, MemoryNodes, "register", law="test_two_nodes_cannot_hold_one_id")
def lets_two_owners_have_one_id(real: Any) -> Any:
    """Who registers last has it."""

    async def register(self: MemoryNodes, record: NodeRecord) -> bool:
        self._table().write(record)
        self._table().tell()
        return True

    return register


@mutant(Base.NODES, NodeTable, "holder", law="test_a_lease_that_has_ended_is_not_renewed")
def renews_a_lease_that_has_ended(real: Any) -> Any:
    """An id stays with its owner for ever."""

    def holder(self: NodeTable, name: str) -> str:
        seat = self._seats.get(name)
        return "" if seat is None or seat.left else seat.record.owner

    return holder


@mutant(Base.NODES, MemoryNodes, "deregister", law="test_a_stale_owners_renewal_is_refused")
def takes_the_new_owner_away_with_itself(real: Any) -> Any:
    """Who leaves takes the id away, whoever has it by now."""

    async def deregister(self: MemoryNodes, record: NodeRecord) -> bool:
        self._table().write(record, left=True)
        self._table().tell()
        return True

    return deregister


@mutant(Base.NODES, membership, "differences", law="test_a_crash_is_told_when_the_lease_ends")
def misses_an_expiry(real: Any) -> Any:
    """Who is gone without a word is not told."""

    def differences(seen: Mapping[str, Sighting], now: Snapshot) -> list[NodeChange]:
        return [each for each in real(seen, now) if each.kind is not ChangeKind.EXPIRED]

    return differences


@mutant(Base.NODES, Watch, "_plan", law="test_a_crash_is_told_when_the_lease_ends")
def trusts_hints_alone(real: Any) -> Any:
    """It looks again only when the broker hints at something."""

    def plan(self: Watch, pause: float) -> None:
        real(self, math.inf)

    return plan


@mutant(Base.NODES, Watch, "_hint", law="test_who_joins_and_who_leaves_is_told_at_once")
def does_not_listen_to_hints(real: Any) -> Any:
    """It looks only at its own times."""

    def hint(self: Watch) -> None:
        pass

    return hint


@mutant(Base.NODES, membership, "differences", law="test_nothing_is_told_while_heartbeats_arrive")
def flaps_with_every_heartbeat(real: Any) -> Any:
    """A renewed lease is told as a node that went and came."""

    def differences(seen: Mapping[str, Sighting], now: Snapshot) -> list[NodeChange]:
        changes = list(real(seen, now))
        for name, new in now.present.items():
            if name in seen and seen[name].node.last_seen != new.node.last_seen:
                changes.append(NodeChange(ChangeKind.EXPIRED, new.node))
                changes.append(NodeChange(ChangeKind.JOINED, new.node))
        return changes

    return differences


@mutant(Base.NODES, membership, "differences", law="test_who_joins_and_who_leaves_is_told_at_once")
def takes_a_good_bye_for_a_crash(real: Any) -> Any:
    """Who left is told as expired."""

    def differences(seen: Mapping[str, Sighting], now: Snapshot) -> list[NodeChange]:
        return list(real(seen, attrs.evolve(now, left=frozenset())))

    return differences


@mutant(Base.NODES, Discovery, "keep", law="test_a_bus_is_a_node_while_it_runs")
def never_sends_a_heartbeat(real: Any) -> Any:
    """A bus registers and leaves it at that."""

    async def keep(self: Discovery) -> None:
        pass

    return keep


@mutant(Base.NODES, Session, "_leave", law="test_a_bus_is_a_node_while_it_runs")
def does_not_leave_on_drain(real: Any) -> Any:
    """A bus that drains is seen until its lease ends."""

    async def leave(self: Session) -> None:
        pass

    return leave


@mutant(
    Base.NODES,
    Discovery,
    "take_over",
    law="test_a_bus_waits_for_a_dead_namesake_and_refuses_beside_a_living_one",
)
def does_not_wait_for_a_dead_namesake(real: Any) -> Any:
    """A process that is started again under its id is refused until the old lease has ended."""

    async def take_over(self: Discovery, node: Any) -> None:
        await self.register(node)

    return take_over


def _changed(script: Script, right: bytes, wrong: bytes) -> Script:
    assert right in script.source, f"{right!r} is not in the script any more"
    return Script(script.source.replace(right, wrong))


@mutant(Base.REDIS, redis_discovery, "WRITE", law="test_a_stale_owners_renewal_is_refused")
def accepts_the_renewal_of_a_stale_owner_on_redis(real: Any) -> Any:
    """The owner in the key is not compared when a lease is renewed."""
    return _changed(
        real, b"if owner and owner ~= ARGV[1] then", b"if ARGV[5] ~= '' and owner ~= ARGV[1] then"
    )


@mutant(Base.REDIS, redis_discovery, "WRITE", law="test_no_ghost_is_seen_after_its_lease")
def keeps_a_ghost_on_redis(real: Any) -> Any:
    """The key of a node has ten times the expiry of its lease."""
    return _changed(real, b"'PEXPIRE', KEYS[1], ARGV[3]", b"'PEXPIRE', KEYS[1], 10 * ARGV[3]")


@mutant(
    Base.REDIS, Watch, "_try_to_look", law="test_what_happened_while_a_watch_was_cut_off_is_told"
)
def calls_everybody_gone_who_cannot_be_seen(real: Any) -> Any:
    """Without a connection the namespace is empty."""

    async def try_to_look(self: Watch) -> None:
        try:
            await self._look()
        except CatgaError as error:
            self.trouble = str(error)
            self._changes += membership.differences(self._seen, Snapshot({}))
            self._seen = {}
            self._plan(self._pause)

    return try_to_look


@mutant(Base.NATS, KvNodes, "_write", law="test_of_many_who_want_one_id_at_once_one_gets_it")
def writes_a_node_without_comparing(real: Any) -> Any:
    """The bucket is read, then written whatever stands there by now."""

    async def write(self: KvNodes, record: NodeRecord, expected: int, headers: Any = None) -> bool:
        for _ in range(20):
            if await real(self, record, expected, headers):
                return True
            entry, _ = await self._bucket.last(record.node.id)
            expected = 0 if entry is None else entry.sequence
        return False

    return write


@mutant(Base.NATS, nats_discovery, "_left", law="test_no_ghost_is_seen_after_its_lease")
def trusts_the_age_of_the_bucket(real: Any) -> Any:
    """Whatever the server still has is there."""

    def left(record: NodeRecord, now: Any) -> float:
        return record.ttl

    return left


@mutant(Base.NATS, Discovery, "_stay", law="test_a_node_that_returns_from_a_partition_is_one_node")
def comes_back_as_somebody_else(real: Any) -> Any:
    """A node whose lease has ended registers under a new id."""

    async def stay(self: Discovery, record: NodeRecord) -> None:
        if self._clock.monotonic() >= self._lease_until:
            record = attrs.evolve(record, node=attrs.evolve(record.node, id=new_instance()))
            self._record = record
        await real(self, record)

    return stay
