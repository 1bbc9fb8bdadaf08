"""What the tests of the examples look at: processes, from outside."""

from __future__ import annotations

import os
import subprocess

__all__ = ["alive", "children"]


def children(parent: int) -> dict[int, str]:
    """Return the command lines of a process' children, by their ids."""
    shown = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    rows = (line.split(None, 2) for line in shown.stdout.splitlines())
    return {int(pid): words for pid, ppid, words in rows if int(ppid) == parent}


def alive(pid: int) -> bool:
    """Say whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
