"""Real servers, private to this run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from redis import Redis

# This folder bears the name of the client library, so it cannot be imported as a package.
sys.path.append(str(Path(__file__).parent))

from catga.testing import named_servers
from catga_redis.testing import RedisServer


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "binary" in metafunc.fixturenames:
        binaries = named_servers("CATGA_TEST_REDIS_SERVERS")
        metafunc.parametrize("binary", list(binaries.values()), ids=list(binaries), scope="session")


@pytest.fixture(scope="session")
def shared_server(binary: str | None) -> Iterator[RedisServer]:
    """A server that tests share."""
    with RedisServer(binary) as running:
        yield running


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    """The same, with nothing left on it of the test before."""
    with Redis(port=shared_server.port) as client:
        client.flushall()
    return shared_server


@pytest.fixture
def own_server(binary: str | None) -> Iterator[RedisServer]:
    """A server for one test that hurts it."""
    with RedisServer(binary) as running:
        yield running
