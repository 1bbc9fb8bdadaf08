"""Run one contestant in this process: `python -m benchmarks.child MODULE`.

Reads one line of JSON for each role to play (`{"role": …, "job": {…}}`), prints one with the
figures, and before it `ready` where the driver waits for that.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import sys
from types import ModuleType
from typing import Any

from benchmarks.job import Job, Watch
from benchmarks.roles import ROLES


async def play(contestant: ModuleType, role: str, job: Job) -> dict[str, Any]:
    """Let the contestant play its role; return the figures."""
    watch = Watch(job.count, arrivals=bool(job.rate), step=job.step)
    if role in ROLES:
        await ROLES[role](contestant, job, watch)
    else:
        await getattr(contestant, role)(job, watch)
    return watch.figures()


def main() -> None:
    """Play what is asked for, until nothing more is."""
    contestant = importlib.import_module(f"benchmarks.contestants.{sys.argv[1]}")
    for line in sys.stdin:
        asked = json.loads(line)
        gc.collect()  # what earlier roles left is none of this one's business
        figures = asyncio.run(play(contestant, asked["role"], Job(**asked["job"])))
        sys.stdout.write(json.dumps(figures) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
