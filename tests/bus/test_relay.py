"""The relay example carries its deliveries over each broker, also while workers and server die."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bus.example_kit import alive, children
from catga.testing import free_port, wait_until
from catga_redis.testing import RedisServer
from redis import Redis

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "github_relay.py"
VERDICT = "relay/verdict.py"
DELIVERY = "85727e76-d4c1-5ae4-9ac8-78133dbab067"
SECRET = "s3same-0pen"
LOST_ONE = "QoS 1: 1 of 9 lost"


@pytest.mark.parametrize(
    "words",
    [
        "--url inmemory://",
        "--broker nats --kill-one",
        "--broker redis --kill-one",
        "--broker nats --kill-one --restart-server",
        "--broker redis --kill-one --restart-server",
    ],
)
def test_the_relay_loses_nothing(words: str) -> None:
    command = [sys.executable, str(EXAMPLE), *words.split(), "--workers", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["ok"]
    for qos in ("1", "2"):
        one = report["qos"][qos]
        assert one["published"] > 0
        assert (one["lost"], one["altered"], one["handled"]) == (0, 0, one["published"])
    assert report["qos"]["2"]["repeated"] <= report["qos"]["2"]["at_risk"]


def _relay(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)


def _line(**fields: object) -> str:
    whole = {"event": "push", "delivery": DELIVERY, "payload": {"a": 1}}
    return json.dumps({**whole, **fields}) + "\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no deliveries"),
        ("\n\n", "holds no deliveries"),
        ("# Real input\n", "line 1: this is not JSON"),
        ("[1]\n", "line 1: this is no JSON object"),
        (_line() + _line(event=""), "line 2: `event` is missing"),
        (_line(delivery=7), "line 1: `delivery` is missing"),
        (_line(delivery="seven"), "line 1: `delivery` is no UUID"),
        (_line(payload="x"), "line 1: `payload` is missing"),
        (_line() + _line(), "line 2: its `delivery` is that of line 1"),
    ],
)
def test_an_input_that_is_none_is_refused_in_one_line(text: str, why: str, tmp_path: Path) -> None:
    given = tmp_path / "deliveries.jsonl"
    given.write_text(text)
    done = _relay("--input", str(given), "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_input_that_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    done = _relay("--input", str(tmp_path / "nothing"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path / 'nothing'}: No such file or directory\n"


def test_wrong_credentials_end_in_one_line_that_does_not_hold_them() -> None:
    with RedisServer(password="right") as server:
        done = _relay("--url", server.url.replace("right", SECRET), "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "refused the credentials" in done.stderr
    assert SECRET not in done.stderr


def test_a_server_that_is_not_there_ends_it_in_one_line() -> None:
    done = _relay("--url", f"nats://127.0.0.1:{free_port()}?connect_deadline=0.3")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "did not answer" in done.stderr


@contextlib.contextmanager
def _long_relay(url: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start one that takes long; yield once its workers have written something down."""
    command = [sys.executable, str(EXAMPLE), "--url", url, "--repeat", "30", "--json"]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    try:
        books = "catga-relay-*/worker-*.journal"
        wait_until(
            lambda: (found := list(folder.glob(books))) and all(map(_size, found)),
            30,
            lambda: "the workers do not begin",
        )
        yield running
    finally:
        running.kill()
        running.communicate()


def _size(path: Path) -> int:
    return path.stat().st_size


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_interrupts_it_finds_nothing_left_behind(
    number: int, status: int, tmp_path: Path
) -> None:
    with RedisServer(password=SECRET) as server:
        client = Redis(port=server.port, password=SECRET)
        with client, _long_relay(server.url, tmp_path) as running:
            workers = children(running.pid)
            assert len(workers) == 2
            assert not any(SECRET in words for words in workers.values())
            assert client.keys("*relay-*")
            running.send_signal(number)
            out, err = running.communicate(timeout=40)
            assert (running.returncode, out) == (status, ""), err
            assert "Traceback" not in err
            assert SECRET not in err
            assert not client.keys("*relay-*")
            assert not any(alive(worker) for worker in workers)
    assert not list(tmp_path.iterdir())


def test_the_workers_of_a_relay_that_was_killed_end_too(tmp_path: Path) -> None:
    with RedisServer() as server, _long_relay(server.url, tmp_path) as running:
        workers = children(running.pid)
        running.kill()
        wait_until(
            lambda: not any(alive(worker) for worker in workers),
            40,
            lambda: "the workers go on",
        )


def test_a_worker_that_failed_is_named_in_the_verdict(tmp_path: Path) -> None:
    with RedisServer() as server, _long_relay(server.url, tmp_path) as running:
        os.kill(min(children(running.pid)), signal.SIGKILL)
        out, err = running.communicate(timeout=60)
    assert running.returncode == 1
    report = json.loads(out.splitlines()[-1])
    assert sorted(report) == ["ok", "qos", "url"]
    assert not report["ok"]
    assert "worker 0 failed: it ended on the way with exit status -9" in err


def _row(**figures: int) -> Any:
    spec = importlib.util.spec_from_file_location("relay_verdict", EXAMPLE.parent / VERDICT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    none = dict.fromkeys(("duplicates", "handled", "lost", "repeated", "altered", "at_risk"), 0)
    return module.QualityRow(**{**none, "published": 9, "p50_ms": 1, "p99_ms": 1, **figures})


@pytest.mark.parametrize(
    ("quality", "disturbed", "figures", "reasons"),
    [
        (0, False, {"lost": 2}, ["QoS 0: 2 of 9 lost"]),
        (0, True, {"lost": 2}, []),
        (0, True, {"repeated": 1}, ["QoS 0: 1 of 9 repeated"]),
        (1, False, {"lost": 1, "altered": 3}, ["QoS 1: 3 of 9 altered on the way", LOST_ONE]),
        (1, False, {"repeated": 4}, []),
        (2, False, {"repeated": 1, "at_risk": 5}, ["QoS 2: 1 of 9 repeated"]),
        (2, True, {"repeated": 5, "at_risk": 5}, []),
        (2, True, {"repeated": 6, "at_risk": 5}, ["QoS 2: 6 of 9 repeated, and at most 5 may be"]),
    ],
)
def test_a_broken_promise_is_named(
    quality: int, *, disturbed: bool, figures: dict[str, int], reasons: list[str]
) -> None:
    assert _row(**figures).broken(quality, disturbed=disturbed) == reasons
