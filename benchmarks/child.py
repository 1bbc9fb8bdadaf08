"""Run one contestant in this process: `python -m benchmarks.child MODULE ROLE JOB`.

Prints one line of JSON, and as a consumer `ready` before it.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys

from benchmarks.job import Job, Watch


async def run(module: str, role: str, job: Job) -> dict[str, float]:
    """Let the contestant play its role; return the figures."""
    contestant = importlib.import_module(f"benchmarks.contestants.{module}")
    watch = Watch(job.count)
    await getattr(contestant, role)(job, watch)
    return watch.figures()


def main() -> None:
    """Read the command line."""
    module, role, words = sys.argv[1:]
    print(json.dumps(asyncio.run(run(module, role, Job(**json.loads(words))))))


if __name__ == "__main__":
    main()
