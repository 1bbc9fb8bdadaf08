"""The contract, over every transport of ours and real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from catga.testing import ServerProcess
from catga.testing.contract import (
    CompletionContract,
    DerivedIdsContract,
    ExactlyOnceContract,
    RequestsContract,
    TransportContract,
)
from catga.testing.harness import Harness
from catga.testing.programs.profiles import PROFILES, chosen_profile
from catga_redis.testing import RedisCluster

Restarting = Callable[[ServerProcess], Callable[[], Awaitable[None]]]


class TestMemory(TransportContract):
    @pytest.fixture
    def harness(self) -> Harness:
        return Harness(
            url="inmemory://contract",
            manual_clock=True,
            small={"live_buffer": 50},
            small_buffer=50,
        )


class TestNats(TransportContract):
    @pytest.fixture
    def harness(self, nats: ServerProcess, restarting: Restarting) -> Harness:
        return Harness(
            url=nats.url,
            time_scale=0.25,
            small={"live_buffer": 50, "max_ack_pending": 60},
            small_buffer=50,
            full={"max_bytes": 1_000_000},
            restart=restarting(nats),
        )


class TestRedis(TransportContract):
    @pytest.fixture
    def harness(self, redis: ServerProcess, restarting: Restarting) -> Harness:
        return Harness(
            url=redis.url,
            time_scale=0.25,
            settings={"reclaim_interval": 0.1, "trim_interval": 0.1},
            small={"live_buffer": 50, "max_payload_bytes": 65_536},
            small_buffer=50,
            restart=restarting(redis),
        )


class TestNatsWithRedisInbox(
    ExactlyOnceContract, CompletionContract, DerivedIdsContract, RequestsContract
):
    """QoS 2 with the records of one transport and the messages of another."""

    @pytest.fixture
    def harness(self, nats: ServerProcess, redis: ServerProcess) -> Harness:
        return Harness(url=nats.url, time_scale=0.25, inbox=redis.url)


class TestRedisWithNatsInbox(ExactlyOnceContract, CompletionContract):
    """And the other way round."""

    @pytest.fixture
    def harness(self, nats: ServerProcess, redis: ServerProcess) -> Harness:
        settings = {"reclaim_interval": 0.1, "trim_interval": 0.1}
        return Harness(url=redis.url, time_scale=0.25, settings=settings, inbox=nats.url)


if chosen_profile() is PROFILES["nightly"]:  # its scenarios stand in tests/redis

    class TestRedisCluster(TransportContract):
        @pytest.fixture
        def harness(self, redis_cluster: RedisCluster) -> Harness:
            return Harness(
                url=redis_cluster.url,
                time_scale=0.25,
                settings={"reclaim_interval": 0.1, "trim_interval": 0.1},
                small={"live_buffer": 50, "max_payload_bytes": 65_536},
                small_buffer=50,
                restart=lambda: asyncio.to_thread(redis_cluster.restart),
            )
