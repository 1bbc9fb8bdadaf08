"""The contract, over every transport of ours and real servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from catga.testing.contract import TransportContract
from catga.testing.harness import Harness
from catga_nats.testing import NatsServer
from catga_redis.testing import RedisServer


@pytest.fixture(scope="session")
def nats() -> Iterator[NatsServer]:
    with NatsServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


class TestMemory(TransportContract):
    @pytest.fixture
    def harness(self) -> Harness:
        return Harness(url="inmemory://contract", manual_clock=True)


class TestNats(TransportContract):
    @pytest.fixture
    def harness(self, nats: NatsServer) -> Harness:
        return Harness(url=nats.url, time_scale=0.25)


class TestRedis(TransportContract):
    @pytest.fixture
    def harness(self, redis: RedisServer) -> Harness:
        return Harness(url=redis.url, time_scale=0.25)
