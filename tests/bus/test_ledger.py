"""The ledger example: it balances while things are killed, and it would say so if it did not."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from catga import Bus

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ledger.py"


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


def test_the_ledger_notices_a_payment_that_is_not_what_was_answered() -> None:
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
