"""One question to JetStream over a socket of its own: no client, no loop, no reconnecting."""

from __future__ import annotations

import json
import socket
from typing import Any

__all__ = ["ask"]

_INBOX = "_INBOX.catga-testing"


def ask(port: int, subject: str, body: str = "", seconds: float = 2.0) -> dict[str, Any]:
    """Return the JSON that answers a request to `subject`.

    Raises `OSError` (also a `TimeoutError`) when nothing comes, and when nobody responds.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as link:
        stream = link.makefile("rb")
        stream.readline()  # INFO
        options = '{"verbose":false,"headers":true,"no_responders":true}'
        words = f"CONNECT {options}\r\nSUB {_INBOX} 1\r\nPUB {subject} {_INBOX} {len(body)}\r\n"
        link.sendall(f"{words}{body}\r\n".encode())
        while line := stream.readline():
            verb, *rest = line.split()
            if verb == b"PING":
                link.sendall(b"PONG\r\n")
            elif verb == b"MSG":
                answer: dict[str, Any] = json.loads(stream.read(int(rest[-1])))
                return answer
            elif verb in {b"HMSG", b"-ERR"}:
                break  # a status without a body: nobody responds
    raise OSError(f"no answer to {subject}")
