"""A consumer whose process is killed at a named point; another one takes over."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest

from bus.bus_kit import Once, Place, eventually, keep, run, settled
from bus.crash_kit import consume
from catga.testing import ChildProcess

COUNT = 10


@pytest.mark.parametrize("point", ["inside", "after-effect"])
def test_a_consumer_that_is_killed_loses_nothing_and_repeats_only_what_was_in_hand(
    brokered: Place, tmp_path: Path, point: str
) -> None:
    async def law() -> None:
        effects = tmp_path / "effects"
        arguments = (brokered.url, brokered.namespace, str(effects))
        # It is killed at the third message of the second half; the first half is settled by then.
        passes = COUNT + 3
        child = ChildProcess.of(consume, *arguments, die_at=point, passes=passes)
        async with brokered.bus() as publisher, child, brokered.outside() as outside:
            await publisher.publish_many([Once(number) for number in range(COUNT)])
            for _ in range(COUNT):
                await child.line("after-effect")
            await settled(outside, "Once", "tests")
            await publisher.publish_many([Once(number) for number in range(COUNT, 2 * COUNT)])
            assert await child.wait() == -signal.SIGKILL
            before = Counter(int(line) for line in effects.read_text().split())
            assert sum(before.values()) == passes - (point == "inside")
            heir = brokered.bus(settings={"lease": 1})
            after = keep(heir, Once)
            async with heir:
                await eventually(lambda: set(before) | set(after) == set(range(2 * COUNT)))
                await settled(outside, "Once", "tests")
            assert await outside.dead("Once") == []
        assert not set(after) & set(range(COUNT)), "what was completed is not handled again"
        assert len(after) == len(set(after))

    run(law)
