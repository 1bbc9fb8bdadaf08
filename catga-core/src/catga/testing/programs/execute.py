"""Executing a program on a stage, in one run of one event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from functools import singledispatchmethod
from typing import Any, TypeVar

from catga.bus import Bus
from catga.errors import CatgaError, PublishUnknown
from catga.ground.clock import ManualClock
from catga.model.capability import Capability
from catga.testing.faults import FaultProxy
from catga.testing.programs.copies import read_copies
from catga.testing.programs.effects import Question, audit
from catga.testing.programs.faults import RECOVERY, Faults, Way
from catga.testing.programs.history import Asked, Disturbance, History, Published
from catga.testing.programs.letters import read_letters, replay_letters
from catga.testing.programs.member import MESSAGES, TIMEOUT, Member, Script, words
from catga.testing.programs.steps import (
    Again,
    Ask,
    Crash,
    Drain,
    Fault,
    Join,
    Later,
    Pass,
    Program,
    Publish,
    Replay,
    Settle,
    Together,
    publishes,
)
from catga.testing.stage import Stage

__all__ = ["execute"]

T = TypeVar("T")
_BACKOFF = (1.0, 2.0)
_DEADLINE = 10.0
"""Seconds of the law for a publish."""
_PATIENCE = 8.0
"""Seconds of the law without any news after which nothing more is expected: longer than a lease
and a timeout and a backoff together."""
_ANSWER = 12.0
"""Seconds of the law that an answer is waited for: as long as a program needs to come to rest."""
_ASKING = 40.0
_GRAIN = 0.005
_FLIGHT = 0.2
_TICK = 0.05


async def execute(program: Program, stage: Stage) -> History:
    """Run `program`, let everything come to rest, and return what happened.

    Raises what it could not do on a broker that is well: connect, subscribe, drain, audit.
    """
    execution = _Execution(program, stage)
    try:
        await execution.perform()
    finally:
        await execution.close()
    return execution.history


class _Execution:
    def __init__(self, program: Program, stage: Stage) -> None:
        self._program = program
        self._stage = stage
        self._clock = stage.clock
        base, cap = (stage.scaled(seconds) for seconds in _BACKOFF)
        self.history = History(
            program.groups,
            program.attempts,
            effects=program.effects,
            backoff=(base, cap),
            grain=0.0 if isinstance(stage.clock, ManualClock) else _GRAIN,
            flight=0.0 if isinstance(stage.clock, ManualClock) else _FLIGHT,
        )
        messages = list(publishes(program.steps))
        asks = [step for step in program.steps if isinstance(step, Ask)]
        self._script = Script(
            {
                (group, f"m{n}"): getattr(message, group)
                for n, message in enumerate(messages)
                for group in program.groups
            }
            | {("a", f"q{step.k}"): step.deeds for step in reversed(asks)}
        )
        self._settings: dict[str, object] = {
            "attempts": program.attempts,
            "backoff_base": base,
            "backoff_cap": cap,
            "handler_timeout": TIMEOUT * stage.lease,
            "publish_deadline": stage.scaled(_DEADLINE),
        }
        self._qualities: list[int] = []
        """Of the messages so far, by number."""
        self._members: list[Member] = []
        self._publisher: Bus | None = None
        self._proxy: FaultProxy | None = None
        self._asking: list[asyncio.Task[None]] = []
        self._watch: asyncio.Task[None] | None = None
        self._faults = Faults(stage, self.history)

    # ---- time

    async def _wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until `condition`, at most so many seconds of the clock; say whether it holds."""
        end = self._clock.monotonic() + seconds
        while not condition():
            if self._clock.monotonic() >= end:
                return False
            await self._tick()
        return True

    async def _tick(self) -> None:
        if isinstance(self._clock, ManualClock):
            await self._clock.advance(self._stage.lease / 8)
        else:
            await self._clock.sleep(_TICK / 2)

    async def _watch_the_loop(self) -> None:
        """Note when this process itself stood still for so long that leases may have ended."""
        while True:
            before = self._clock.monotonic()
            await self._clock.sleep(_TICK / 2)
            now = self._clock.monotonic()
            if now - before > self._stage.lease / 4:
                end = now + self._stage.lease
                self.history.disturbances.append(Disturbance("stall", before, end))

    # ---- the course

    async def perform(self) -> None:
        """From the curtain's rise to the audit."""
        if not isinstance(self._clock, ManualClock):
            self._watch = self._stage.tasks.spawn(self._watch_the_loop(), "watch the loop")
        await self._stage.wait(self._open())
        for step in self._program.steps:
            await self._do(step)
        await self._come_to_rest()
        again = sorted({each.id for each in self.history.asked})
        await self._stage.wait(_all(self._ask(id_, last=True) for id_ in again), _ASKING)
        await self._stage.wait(
            _all(each.drain() if each.present else each.gone() for each in self._members)
        )
        await self._audit()

    async def close(self) -> None:
        """Let go of the members and the publisher, also after a failure."""
        if self._watch is not None:
            self._watch.cancel()
        with contextlib.suppress(CatgaError, TimeoutError):
            for member in self._members:
                if member.present:
                    await member.bus.close()
            if self._publisher is not None:
                await self._publisher.close()

    async def _open(self) -> None:
        url = None
        if self._stage.harness.proxied_port is not None:
            self._proxy, url = await self._stage.proxy()
        publisher = self._stage.bus(
            url=url,
            consume=False,
            publishes=[MESSAGES[qos] for qos in sorted(self._program.qualities)],
            settings=self._settings,
        )
        await publisher.__aenter__()
        self._publisher = publisher
        for group, count in zip(self._program.groups, self._program.members, strict=True):
            for _ in range(count):
                await self._join(group)

    async def _join(self, group: str) -> None:
        member = Member(
            self._stage, self.history, self._script, group=group, number=len(self._members)
        )
        self._members.append(member)
        member.answers = self._program.asks and group == "a"
        await member.join(self._program.qualities, self._settings)

    def _present(self, group: str) -> list[Member]:
        return [each for each in self._members if each.present and each.group == group]

    # ---- steps

    @singledispatchmethod
    async def _do(self, step: Any) -> None:
        raise TypeError(f"not a step: {step!r}")

    @_do.register
    async def _(self, step: Publish) -> None:
        await self._stage.wait(self._publish(self._new(step)))

    @_do.register
    async def _(self, step: Later) -> None:
        delay = self._stage.scaled(step.seconds)
        await self._stage.wait(self._publish(self._new(step), delay))

    @_do.register
    async def _(self, step: Replay) -> None:
        if step.group in self._program.groups and self._publisher is not None:
            await self._wait(self._through, self._stage.scaled(_PATIENCE))
            types = frozenset(MESSAGES[qos].__name__ for qos in self._program.qualities)
            letters = self._publisher.dead_letters
            await self._stage.wait(replay_letters(letters, step.group, types, self.history))

    @_do.register
    async def _(self, step: Again) -> None:
        if self._qualities:
            await self._stage.wait(self._publish(step.k % len(self._qualities)))

    @_do.register
    async def _(self, step: Together) -> None:
        numbers = []
        for each in step.steps:
            if isinstance(each, Publish):
                numbers.append(self._new(each))
            elif self._qualities:
                numbers.append(each.k % len(self._qualities))
        await self._stage.wait(_all(self._publish(number) for number in numbers))

    @_do.register
    async def _(self, step: Ask) -> None:
        asking = self._ask(f"q{step.k}")
        self._asking.append(self._stage.tasks.spawn(asking, f"ask {step.k}"))

    @_do.register
    async def _(self, step: Join) -> None:
        if step.group in self._program.groups:
            await self._stage.wait(self._join(step.group))

    @_do.register
    async def _(self, step: Drain) -> None:
        for member in self._present(step.group)[:1]:
            self.history.drains += 1
            await self._stage.wait(self._passed_on())
            await self._stage.wait(member.drain())

    @_do.register
    async def _(self, step: Crash) -> None:
        for member in self._present(step.group)[:1]:
            member.crash()

    @_do.register
    async def _(self, step: Pass) -> None:
        await self._stage.pass_time(step.seconds)

    @_do.register
    async def _(self, _: Settle) -> None:
        await self._wait(self._through, self._stage.scaled(_PATIENCE))

    @_do.register
    async def _(self, step: Fault) -> None:
        await self._faults.befall(step, self._ways())

    def _ways(self) -> list[Way]:
        """Return the ways to the broker that there are now."""
        found = [
            Way(each.group, each.proxy, each.tap, each.number)
            for each in self._members
            if each.present and each.proxy
        ]
        if self._proxy is not None:
            found.insert(0, Way("publisher", self._proxy, self._stage.tap))
        return found

    def _new(self, step: Publish) -> int:
        self._qualities.append(step.qos)
        return len(self._qualities) - 1

    async def _publish(self, number: int, delay: float | None = None) -> None:
        id_, qos = f"m{number}", self._qualities[number]
        assert self._publisher is not None
        live = frozenset(group for group in self._program.groups if self._present(group))
        now = self._clock.monotonic()
        entry = Published(id_, qos, now, live, due=now + (delay or 0.0))
        self.history.published.append(entry)
        try:
            receipt = await self._publisher.publish(
                MESSAGES[qos](words(id_)), message_id=id_, delay=delay
            )
        except PublishUnknown:
            entry.outcome = "unknown"
        except CatgaError:
            entry.outcome = "rejected"
        else:
            entry.outcome, entry.duplicate = "accepted", receipt.duplicate

    async def _ask(self, id_: str, *, last: bool = False) -> None:
        assert self._publisher is not None
        entry = Asked(id_, last)
        self.history.asked.append(entry)
        seconds = max(self._stage.scaled(_ANSWER), RECOVERY if self._program.faults else 0.0)
        try:
            entry.answer = await self._publisher.request(
                Question(words(id_)), to="a", message_id=id_, timeout=seconds
            )
        except CatgaError as error:
            entry.error = f"{type(error).__name__}: {error}"

    # ---- the end

    def _through(self) -> bool:
        """Say whether every group that has a member is through with all that was accepted."""
        if any(member.busy for member in self._members if member.present):
            return False
        if not all(task.done() for task in self._asking):
            return False
        ended = Counter(
            (each.group, each.id)
            for each in self.history.settled
            if each.word in {"ack", "dead-letter"}
        )
        groups = [group for group in self._program.groups if self._present(group)]
        return all(
            ended[group, each.id] > self.history.replayed[group, each.id]
            for each in self.history.published
            if each.qos and each.outcome == "accepted"
            for group in groups
        )

    async def _come_to_rest(self) -> None:
        await self._faults.end(self._ways())
        patience = self._stage.scaled(_PATIENCE)
        if self._program.faults or Capability.DELAY in self._program.needs:
            patience = max(patience, RECOVERY)
        end = self._clock.monotonic() + 10 * patience
        while self._clock.monotonic() < end:
            for group in self._program.groups:
                while not self._present(group):  # it may crash as soon as it has joined
                    await self._do(Join(group))
            news = self._news()
            through = self._through()
            # Through, something may still come that should not; not through, it may take a while.
            pause = 1.2 * self._stage.lease if through else patience
            moved = await self._wait(lambda news=news: self._news() != news, pause)  # type: ignore[misc]
            if not moved and all(map(self._present, self._program.groups)):
                self.history.quiet = not any(each.busy for each in self._members if each.present)
                return
        self.history.quiet = False

    def _news(self) -> tuple[int, int, int]:
        history = self.history
        return len(history.runs), len(history.settled), len(history.disturbances)

    async def _passed_on(self) -> None:
        """Return once the broker has passed on what was published: who leaves while a message at
        QoS 0 is on its way may miss it."""
        assert self._publisher is not None
        await self._publisher.health()  # a round trip, whatever it says

    async def _reach(self) -> None:
        """Return once the auditor has its connection back."""
        while not (await self._stage.anchor.health()).ok:
            await self._clock.sleep(_TICK)

    async def _audit(self) -> None:
        await self._stage.wait(self._reach())
        qualities = sorted({each.qos for each in self.history.published if each.qos})
        copies = _all(read_copies(self._stage, qos) for qos in qualities)
        self.history.copies = [each for found in await self._stage.wait(copies) for each in found]
        ids = [each.id for each in self.history.published if each.qos == 2]
        asked = self.history.asked
        if ids or asked:
            self.history.books = await audit(self._stage, self._program.groups, ids, asked)
        store = self._stage.anchor.dead_letters
        if store is not None:
            self.history.letters = await self._stage.wait(
                read_letters(store, self._stage.namespace)
            )


async def _all(works: Iterable[Awaitable[T]]) -> list[T]:
    return list(await asyncio.gather(*works))
