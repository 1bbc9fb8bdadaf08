"""Holding a real broker to the contract, in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

_SECONDS = 90.0


def verified(url: str, *families: str) -> dict[str, Any]:
    """Return the certificate of a broker on which every law of these families holds."""
    run = subprocess.run(
        _command(url, families), capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    certificate: dict[str, Any] = json.loads(run.stdout)
    assert certificate["counts"]["shown"] > 0
    assert certificate["left_behind"] == {}
    return certificate


def interrupt(url: str, family: str, stored: Callable[[], object]) -> None:
    """Press Ctrl-C as soon as something is stored; only then the program ends, as it says."""
    with subprocess.Popen(
        _command(url, [family]), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + _SECONDS
        try:
            while not stored():
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
            process.send_signal(signal.SIGINT)
            shown, told = process.communicate(timeout=_SECONDS)
        finally:
            process.kill()
    assert process.returncode == 130, told
    assert json.loads(shown)["interrupted"] is True
    assert "Traceback" not in told


def _command(url: str, families: Any) -> list[str]:
    named = [word for family in families for word in ("--family", family)]
    options = ["--json", "--time-scale", "0.25", *named]
    return [sys.executable, "-m", "catga", "verify", *options, url]
