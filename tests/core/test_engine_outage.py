"""A store of completion records that is away for as long as a cluster elects a leader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from catga.errors import ConnectionLost
from catga.spi import (
    Commit,
    SettleResult,
    Unknown,
)
from catga_inmemory.subscriptions import LogSubscription
from core.engine_kit import Once, Probe, eventually, run


@pytest.mark.parametrize("raised", [None, ConnectionLost("no leader"), AttributeError("_loop")])
def test_a_completion_is_recorded_as_soon_as_it_can_be_while_the_lease_is_ours(
    monkeypatch: pytest.MonkeyPatch, raised: Exception | None
) -> None:
    """A JetStream leader that dies is replaced in 4 to 9 s: nobody crashed, so what was handled
    is not handled again. Nor when a client raises what belongs to a socket that was lost."""

    async def law(probe: Probe) -> None:
        back = probe.clock.monotonic() + 9
        commit = LogSubscription.commit

        async def away(self: LogSubscription, batch: Sequence[Commit]) -> list[SettleResult]:
            if probe.clock.monotonic() < back:
                if raised is not None:
                    raise raised
                return [Unknown(ConnectionLost("no leader"))] * len(batch)
            return list(await commit(self, batch))

        monkeypatch.setattr(LogSubscription, "commit", away)
        handled: Counter[int] = Counter()
        bus = probe.bus()

        @bus.handle(Once)
        async def handle(message: Once) -> None:
            handled[message.number] += 1

        async with bus:
            await bus.publish(Once(1))
            await eventually(lambda: handled[1])
            for _ in range(120):
                await probe.pass_time(0.5)
            assert handled[1] == 1

    run(law)
