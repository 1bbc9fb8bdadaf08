"""Scenarios from the tests of one broker, tried out like laws: what no contract can ask of all."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from catga.testing.harness import Harness
from catga_redis.testing import RedisCluster

__all__ = ["OWN"]

_TESTS = Path(__file__).parents[1]


@attrs.frozen
class _At:
    """What these scenarios ask of a server that runs already."""

    url: str
    port: int | None


def _scenario(module: str, name: str, *rest: object) -> Callable[[Harness], None]:
    return lambda harness: _function(module, name)(_At(harness.url, harness.proxied_port), *rest)


def _on_a_cluster(module: str, name: str) -> Callable[[Harness], None]:
    def run(harness: Harness) -> None:
        del harness
        with RedisCluster() as cluster:
            _function(module, name)(cluster)

    return run


def _function(module: str, name: str) -> Any:
    for folder in ("redis", "nats"):  # at the end: one of them bears the name of a library
        if str(_TESTS / folder) not in sys.path:
            sys.path.append(str(_TESTS / folder))
    return getattr(importlib.import_module(module), name)


_DELETED = "test_what_is_deleted_at_run_time_is_made_again_and_the_bus_goes_on"
_MOVED = "test_a_slot_that_moves_with_what_is_in_it_loses_and_doubles_nothing"
_LISTENS = "test_who_listens_at_qos_0_follows_its_slot"

OWN: Mapping[str, Callable[[Harness], None]] = {
    **{
        name: _scenario(f"test_redis_{module}", name)
        for module, name in (
            ("faults", "test_a_removed_stream_is_made_again_and_said"),
            ("stored", "test_an_entry_deleted_while_pending_is_dropped_and_said"),
            ("doors", "test_no_read_asks_for_more_than_read_count_or_the_window"),
        )
    },
    _MOVED: _on_a_cluster("test_redis_cluster", _MOVED),
    _LISTENS: _on_a_cluster("test_redis_cluster", _LISTENS),
    _DELETED: _scenario("test_nats_lost", _DELETED, "CONSUMER.DELETE.{0}-log.billing=Order"),
}
"""By name; each for the broker it is about."""
