"""The ledger example: it balances while things are killed, and it would say so if it did not."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bus.example_kit import alive, children
from catga import Bus
from catga.testing import free_port, wait_until
from catga_redis.testing import RedisServer
from redis import Redis

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ledger.py"
SECRET = "s3same-0pen"


@pytest.mark.parametrize("broker", ["redis", "nats"])
def test_the_ledger_balances_while_workers_and_server_are_killed(broker: str) -> None:
    command = [sys.executable, str(EXAMPLE), "--broker", broker, "--json"]
    command += ["--payments", "150", "--workers", "2", "--kill-seconds", "0.3"]
    done = subprocess.run(command, capture_output=True, timeout=240, check=False)
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"], report["problems"]) == (0, True, [])
    assert report["booked"] + report["refused"] == 150
    assert report["worker_kills"] + report["server_kills"] > 0
    assert f"[atomic: {broker}]" in report["mode"]


def _example() -> Any:
    spec = importlib.util.spec_from_file_location("ledger_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_ledger_notices_a_payment_that_is_not_what_was_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    ledger = _example()

    async def law() -> None:
        pays = [ledger.Pay(0, 0, 1, 500), ledger.Pay(1, 1, 2, 20_000)]
        bus = Bus("inmemory://", service=ledger.GROUP)
        bus.handle(ledger.Pay)(ledger.book)
        async with bus:
            answers = {pay.number: await bus.request(pay) for pay in pays}
            assert answers == {0: "booked", 1: "refused"}
            right, wrong = ledger.Report("memory", 2), ledger.Report("memory", 2)
            await ledger.judge(bus, bus.namespace, pays, answers, right)
            await ledger.judge(bus, bus.namespace, pays, {0: "booked", 1: "booked"}, wrong)
        assert right.ok
        assert not wrong.ok
        assert any("account 1" in problem for problem in wrong.problems)

    asyncio.run(law())


def _refused(*words: str) -> str:
    command = [sys.executable, str(EXAMPLE), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_a_server_that_is_of_no_use_is_told_of_in_one_line() -> None:
    with RedisServer(password="right") as server:
        words = _refused("--url", server.url.replace("right", SECRET))
        assert "refused the credentials" in words
        assert SECRET not in words
    words = _refused("--url", f"nats://127.0.0.1:{free_port()}?connect_deadline=0.3")
    assert "did not answer" in words


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_interrupts_the_ledger_finds_nothing_left_behind(number: int, status: int) -> None:
    with RedisServer(password=SECRET) as server:
        command = [sys.executable, str(EXAMPLE), "--url", server.url, "--payments", "5000"]
        client = Redis(port=server.port, password=SECRET)
        pipe = subprocess.PIPE
        with client, subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as running:
            try:
                wait_until(
                    lambda: client.keys("*ledger-*account-*"), 30, lambda: "nothing is booked"
                )
                wait_until(lambda: len(children(running.pid)) == 3, 30, lambda: "too few workers")
                workers = children(running.pid)
                assert not any(SECRET in words for words in workers.values())
                running.send_signal(number)
                out, err = running.communicate(timeout=40)
                assert (running.returncode, out) == (status, ""), err
                assert "Traceback" not in err
                assert not client.keys("*ledger-*")
                assert not any(alive(worker) for worker in workers)
            finally:
                running.kill()
