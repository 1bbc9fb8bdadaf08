"""Programs, over every transport of ours and real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from catga.testing import ServerProcess
from catga.testing.harness import Harness
from catga.testing.programs import ProgramContract
from catga_nats.testing import NatsServer
from catga_redis.testing import RedisServer


def restarting(server: ServerProcess) -> Callable[[], Awaitable[None]]:
    def restart() -> None:
        server.kill()
        server.start()

    return lambda: asyncio.to_thread(restart)


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsServer]:
    with NatsServer() as server:
        yield server


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


class TestMemory(ProgramContract):
    @pytest.fixture
    def harness(self) -> Harness:
        return Harness(url="inmemory://programs", manual_clock=True)


class TestNats(ProgramContract):
    @pytest.fixture
    def harness(self, nats: NatsServer) -> Harness:
        return Harness(
            url=nats.url, time_scale=0.15, restart=restarting(nats), pause=nats.stand_still
        )


class TestRedis(ProgramContract):
    @pytest.fixture
    def harness(self, redis: RedisServer) -> Harness:
        return Harness(
            url=redis.url,
            time_scale=0.15,
            settings={"reclaim_interval": 0.05},
            restart=restarting(redis),
            pause=redis.stand_still,
        )
