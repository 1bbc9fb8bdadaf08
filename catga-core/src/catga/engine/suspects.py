"""What has come too often without a word: one of these ends whoever runs it, the others wait
behind it and come as often.

A broker counts deliveries, and tells nobody which of them were begun. Whoever ends its process
stands before those that it never let begin, so the first that comes is parked unrun. The others are
run one by one, each settled before the next begins: if one of them ends this process as well, it is
the first that comes to the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from catga.engine.work import State, Work

__all__ = ["Suspects"]


class Suspects:
    """Those of one consumer."""

    def __init__(self, park: Callable[[Work], None], run: Callable[[Iterable[Work]], None]) -> None:
        self._park = park
        self._run = run
        self._has_parked = False
        self._waiting: deque[Work] = deque()
        self._running: Work | None = None

    def add(self, work: Work) -> None:
        """Take the next one that came, unless it was given back or lost meanwhile."""
        if work.state is not State.QUEUED:
            return
        if not self._has_parked:
            self._has_parked = True
            self._park(work)
            return
        self._waiting.append(work)
        work.feed.on_release = self._go_on
        self._go_on()

    def _go_on(self) -> None:
        """Run the next one, unless the last one is still in hand."""
        if self._running is not None and self._running.state is not State.GONE:
            return
        self._running = None
        while self._waiting:
            work = self._waiting.popleft()
            if work.state is State.QUEUED:  # else it was given back or lost meanwhile
                self._running = work
                self._run([work])
                return
