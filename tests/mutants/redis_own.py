"""Mutants that only a scenario of Redis itself can find."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from catga_redis import live, settling
from catga_redis.cluster import Cluster
from catga_redis.reader import GroupReader
from catga_redis.sentinel import SentinelDialer
from catga_redis.servers import OneServer
from catga_redis.slots import Node
from catga_redis.streams import LogSubscription
from mutants.mutation import Base, mutant

_MOVED = "test_a_slot_that_moves_with_what_is_in_it_loses_and_doubles_nothing"


@mutant(Base.REDIS, GroupReader, "_repair", law="test_a_removed_stream_is_made_again_and_said")
def leaves_a_removed_stream_gone(real: Any) -> Any:
    """A stream or group that somebody removed is asked for again and again, and never made."""

    async def repair(
        self: GroupReader, hungry: tuple[LogSubscription, ...], error: Exception
    ) -> None:
        del hungry, error
        await asyncio.sleep(0.1)

    return repair


@mutant(
    Base.REDIS,
    settling,
    "tell_gone",
    law="test_an_entry_deleted_while_pending_is_dropped_and_said",
)
def loses_in_silence_what_was_deleted(real: Any) -> Any:
    """Entries that are gone before they were settled are nobody's news."""

    def tell_gone(*rest: Any) -> None:
        del rest

    return tell_gone


@mutant(
    Base.REDIS,
    LogSubscription,
    "room",
    law="test_no_read_asks_for_more_than_read_count_or_the_window",
)
def reads_without_a_bound(real: Any) -> Any:
    """A read asks for more than the window has room for."""
    return property(lambda self: 0 if self.draining else 1_000_000)


@mutant(Base.REDIS, Cluster, "candidates", law=_MOVED)
def stays_where_a_slot_was(real: Any) -> Any:
    """Who reads a slot goes back to the server that owned it at first."""
    first: dict[int, list[Node]] = {}

    def candidates(self: Cluster, slot: int) -> list[Node]:
        return first.setdefault(slot, real(self, slot)) if slot >= 0 else real(self, slot)

    return candidates


@mutant(Base.REDIS, live, "_PLAIN", law="test_who_listens_at_qos_0_follows_its_slot")
def hears_no_shard(real: Any) -> Any:
    """What comes on the channel of a shard is passed over."""
    return frozenset({b"message"})


@mutant(
    Base.REDIS,
    OneServer,
    "place",
    law="test_each_role_has_one_connection_however_many_subscriptions",
)
def connects_for_every_subscription(real: Any) -> Any:
    """Each subscription has a connection of its own."""
    places = itertools.count()
    return lambda self, key: next(places)


@mutant(
    Base.REDIS,
    SentinelDialer,
    "_ask",
    law="test_a_killed_primary_is_replaced_and_nothing_replicated_is_lost",
)
def asks_its_sentinel_once(real: Any) -> Any:
    """Where the primary was at first is where it is looked for."""
    known: list[tuple[str, int]] = []

    async def ask(self: SentinelDialer, host: str, port: int) -> tuple[str, int]:
        if not known:
            known.append(await real(self, host, port))
        return known[0]

    return ask
