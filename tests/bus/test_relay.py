"""The relay example carries its deliveries over each broker, also while workers and server die."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "github_relay.py"


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
