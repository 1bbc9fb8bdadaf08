"""Servers for the laws: each version that `CATGA_TEST_*_SERVERS` names, started once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from catga.testing import ServerProcess, named_servers
from catga_nats.testing import NatsServer
from catga_redis.testing import RedisCluster, RedisServer

NATS = named_servers("CATGA_TEST_NATS_SERVERS")
REDIS = named_servers("CATGA_TEST_REDIS_SERVERS")


@pytest.fixture(scope="session")
def restarting() -> Callable[[ServerProcess], Callable[[], Awaitable[None]]]:
    """What makes of a server what ends it the hard way and starts it again on its data."""

    def of(server: ServerProcess) -> Callable[[], Awaitable[None]]:
        def restart() -> None:
            server.kill()
            server.start()

        return lambda: asyncio.to_thread(restart)

    return of


@pytest.fixture(scope="session", params=NATS.values(), ids=[f"nats-{name}" for name in NATS])
def nats(request: pytest.FixtureRequest) -> Iterator[NatsServer]:
    with NatsServer(request.param) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    with RedisCluster() as running:
        yield running


@pytest.fixture(scope="session", params=REDIS.values(), ids=[f"redis-{name}" for name in REDIS])
def redis(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(request.param) as server:
        yield server
