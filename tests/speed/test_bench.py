"""Laws of `catga bench`: it measures what it says it does, and leaves a broker as it found it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from redis.asyncio import Redis

import nats
from catga.cli import main
from catga.testing import ServerProcess
from catga_nats.testing import NatsServer
from catga_redis.testing import RedisServer

PATHS = {
    (0, "publish and handle"),
    (0, "latency at 200 per second"),
    (0, "request one by one"),
    *(
        (qos, path)
        for qos in (1, 2)
        for path in (
            "publish many",
            "consume",
            "publish one by one",
            "latency at 200 per second",
        )
    ),
}


@pytest.fixture(params=[NatsServer, RedisServer])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    process = request.param()
    try:
        yield process.start()
    finally:
        process.stop()


def left_on(server: ServerProcess) -> list[str]:
    """Return what lies in the broker."""

    async def streams() -> list[str]:
        client = await nats.connect(server.url)
        found = [each.config.name or "" for each in await client.jetstream().streams_info()]
        await client.close()
        return found

    async def keys() -> list[str]:
        async with Redis.from_url(server.url) as client:
            return [str(each) for each in await client.keys("*")]

    return asyncio.run(streams() if isinstance(server, NatsServer) else keys())


def bench(*arguments: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(main, ["bench", *arguments, "--seconds", "0.05", "--json"])
    return result.exit_code, json.loads(result.stdout)


def test_every_path_is_measured_and_the_namespace_is_gone(server: ServerProcess) -> None:
    status, report = bench(server.url)
    assert (status, report["failures"], report["left_behind"]) == (0, {}, "")
    assert {(each["qos"], each["path"]) for each in report["speeds"]} == PATHS
    for each in report["speeds"]:
        assert (each["per_second"] or 0) > 0 or 0 < each["p50_us"] <= each["p99_us"]
    assert left_on(server) == []


def test_ctrl_c_ends_it_and_takes_the_namespace_away(server: ServerProcess) -> None:
    words = [sys.executable, "-m", "catga", "bench", server.url, "--qos", "1", "--seconds", "60"]
    process = subprocess.Popen(
        [*words, "--json"], stdout=subprocess.PIPE, text=True, env={**os.environ, "TERM": "dumb"}
    )
    deadline = time.monotonic() + 30
    while not left_on(server):  # it has begun
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    report = json.loads(output)
    assert (process.returncode, report["interrupted"], report["left_behind"]) == (130, True, "")
    assert left_on(server) == []


def test_in_memory_nothing_else_is_needed() -> None:
    status, report = bench("inmemory://", "--qos", "2", "--size", "1024")
    assert (status, report["size_bytes"]) == (0, 1024)
    assert {each["qos"] for each in report["speeds"]} == {2}


def test_a_broker_that_is_not_there_is_one_line() -> None:
    result = CliRunner().invoke(main, ["bench", "nats://user:secret@127.0.0.1:1", "--short"])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "secret" not in result.stderr
