"""`catga verify` on a real server: what it says, and that it leaves the server as it was."""

from __future__ import annotations

from catga_redis.testing import RedisServer
from core.verify_kit import interrupt, verified
from redis import Redis


def keys(server: RedisServer) -> set[bytes]:
    """Ask the client itself for every key there is."""
    with Redis.from_url(server.url) as client:
        return {*client.keys()}


def test_the_contract_is_kept_and_nothing_is_left(server: RedisServer) -> None:
    certificate = verified(server.url, "poison", "completion", "addressing")
    name, version = certificate["versions"]["server"].split()
    assert name in {"redis", "valkey"}
    assert version[0].isdecimal()
    assert certificate["versions"]["transport"].startswith("catga-redis ")
    assert keys(server) == set()


def test_after_ctrl_c_nothing_is_left(server: RedisServer) -> None:
    interrupt(server.url, "lease", lambda: keys(server))
    assert keys(server) == set()
