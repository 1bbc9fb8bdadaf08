"""Run `module:function` with JSON arguments: the other end of `ChildProcess.of`."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import sys
import threading

from catga.testing.faults.point import die_at


def _end_with_parent() -> None:
    """The parent holds our stdin open; when it ends in whatever way, so do we."""
    sys.stdin.buffer.read()
    os._exit(1)


def main(reference: str, arguments: str, point: str, passes: str) -> None:
    """Call it, in an event loop when it is a coroutine function."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if point:
        die_at(point, int(passes))
    module, _, name = reference.partition(":")
    result = getattr(importlib.import_module(module), name)(*json.loads(arguments))
    if inspect.iscoroutine(result):
        asyncio.run(result)
    sys.stdout.flush()
    os._exit(0)  # not past the thread that waits in a read


if __name__ == "__main__":
    main(*sys.argv[1:])
