"""Ctrl-C ends the program soon, also while it connects to a server that nobody can reach."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time

import pytest


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("nodes {}", signal.SIGINT),
        ("nodes {} --watch", signal.SIGINT),
        ("nodes {} --watch --json", signal.SIGTERM),
        ("dead-letters list {}", signal.SIGINT),
        ("bench {}", signal.SIGINT),
    ],
)
@pytest.mark.parametrize("scheme", ["nats", "redis"])
def test_ctrl_c_while_it_connects_ends_it_soon(
    words: str, number: signal.Signals, scheme: str
) -> None:
    """It has connected, then, to somebody who says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}?connect_deadline=60"
        command = [sys.executable, "-m", "catga", *words.format(url).split()]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
            try:
                silent.settimeout(30)
                with silent.accept()[0]:
                    began = time.monotonic()
                    process.send_signal(number)
                    out, errors = process.communicate(timeout=30)
                assert (process.returncode, out) == (130, ""), errors
                assert time.monotonic() - began < 3
                assert "Traceback" not in errors
                assert errors.count("\n") <= 1
            finally:
                process.kill()
