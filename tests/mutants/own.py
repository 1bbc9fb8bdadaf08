"""Scenarios from the tests of one broker, tried out like laws: what no contract can ask of all."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import attrs

from catga.testing.harness import Harness
from catga_nats.testing import NatsCluster
from catga_redis.testing import RedisCluster, RedisSentinel

__all__ = ["OWN"]

_TESTS = Path(__file__).parents[1]


@attrs.frozen
class _At:
    """What these scenarios ask of a server that runs already."""

    url: str
    port: int | None


def _scenario(module: str, name: str, *rest: object) -> Callable[[Harness], None]:
    return lambda harness: _function(module, name)(_At(harness.url, harness.proxied_port), *rest)


def _on(
    servers: Callable[[], AbstractContextManager[Any]], module: str, name: str, *rest: object
) -> Callable[[Harness], None]:
    def run(harness: Harness) -> None:
        del harness
        with servers() as running:
            _function(module, name)(running, *rest)

    return run


def _function(module: str, name: str) -> Any:
    for folder in ("redis", "nats"):  # at the end: one of them bears the name of a library
        if str(_TESTS / folder) not in sys.path:
            sys.path.append(str(_TESTS / folder))
    return getattr(importlib.import_module(module), name)


_DELETED = "test_what_is_deleted_at_run_time_is_made_again_and_the_bus_goes_on"
_MOVED = "test_a_slot_that_moves_with_what_is_in_it_loses_and_doubles_nothing"
_LISTENS = "test_who_listens_at_qos_0_follows_its_slot"
_REPLACED = "test_a_killed_primary_is_replaced_and_nothing_replicated_is_lost"
_LED = "test_a_leader_that_is_killed_costs_nothing_accepted"

OWN: Mapping[str, Callable[[Harness], None]] = {
    **{
        name: _scenario(f"test_redis_{module}", name)
        for module, name in (
            ("faults", "test_a_removed_stream_is_made_again_and_said"),
            ("stored", "test_an_entry_deleted_while_pending_is_dropped_and_said"),
            ("doors", "test_no_read_asks_for_more_than_read_count_or_the_window"),
            ("doors", "test_each_role_has_one_connection_however_many_subscriptions"),
        )
    },
    _MOVED: _on(RedisCluster, "test_redis_cluster", _MOVED),
    _LISTENS: _on(RedisCluster, "test_redis_cluster", _LISTENS),
    _REPLACED: _on(RedisSentinel, "test_redis_sentinel", _REPLACED),
    _LED: _on(NatsCluster, "test_nats_cluster", _LED, "the leader"),
    _DELETED: _scenario("test_nats_lost", _DELETED, "CONSUMER.DELETE.{0}-log.billing=Order"),
}
"""By name; each for the broker it is about."""
