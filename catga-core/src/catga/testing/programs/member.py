"""A member of a group: a bus whose handlers follow a script, and that can stand still or vanish."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import attrs

from catga.engine.context import Context
from catga.errors import ConfigurationError
from catga.ground.clock import Clock, Timer
from catga.model.message import Event
from catga.model.qos import QualityOfService
from catga.model.retry import Reject, Retry
from catga.model.subject import parse_subject
from catga.spi import Instrument, Kind, PublishResult, Receipt
from catga.testing.faults import FaultProxy
from catga.testing.programs.effects import (
    DERIVED,
    Question,
    perform_effects,
    was_recorded,
)
from catga.testing.programs.history import Disturbance, History, Parked, Run, Settled
from catga.testing.programs.steps import Deed
from catga.testing.stage import Stage
from catga.testing.tap import Tap

__all__ = ["MESSAGES", "Member", "Script", "words"]

SLOW, LATE = 1.3, 2.5
"""In leases: longer than one, shorter than the handler's timeout; and well after its end."""
TIMEOUT = 1.75
"""Of a handler, in leases."""


@attrs.frozen
class Live(Event):
    """A message at QoS 0."""

    qos = QualityOfService.AT_MOST_ONCE
    text: str


@attrs.frozen
class Kept(Event):
    """A message at QoS 1."""

    qos = QualityOfService.AT_LEAST_ONCE
    text: str


@attrs.frozen
class Once(Event):
    """A message at QoS 2."""

    qos = QualityOfService.EXACTLY_ONCE
    text: str


MESSAGES: Mapping[int, type[Live | Kept | Once]] = {0: Live, 1: Kept, 2: Once}
_QUALITIES = {cls.__name__: qos for qos, cls in MESSAGES.items()}


def words(message_id: str) -> str:
    """Return what the message of this id holds: nothing that survives a careless encoding."""
    return f'{message_id} "\\ü\u2028\U0001f9ea\x00'


class Script:
    """What the handlers do, call by call; shared by all members of a program."""

    def __init__(self, deeds: Mapping[tuple[str, str], tuple[Deed, ...]]) -> None:
        self._deeds = deeds
        self._calls: defaultdict[tuple[str, str], int] = defaultdict(int)

    def next(self, group: str, message_id: str) -> Deed:
        """Return the deed of this call, and count it."""
        key = (group, message_id)
        call, deeds = self._calls[key], self._deeds.get(key, ())
        self._calls[key] = call + 1
        return deeds[call] if call < len(deeds) else "ok"


class _Timer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback
        self.inner: Timer | None = None

    def cancel(self) -> None:
        self.callback = None
        if self.inner is not None:
            self.inner.cancel()


class MemberClock(Clock):
    """The clock of one member: it shows the time, but while frozen nothing becomes due."""

    def __init__(self, inner: Clock) -> None:
        self._inner = inner
        self._frozen = 0
        self._due: list[_Timer] = []

    def monotonic(self) -> float:
        """Return the stage's time."""
        return self._inner.monotonic()

    def now(self) -> datetime:
        """Return the stage's time of day."""
        return self._inner.now()

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call back in time, or once thawed."""
        timer = _Timer(callback)
        timer.inner = self._inner.call_later(delay, lambda: self._ring(timer))
        return timer

    def _ring(self, timer: _Timer) -> None:
        if self._frozen:
            self._due.append(timer)
        elif timer.callback is not None:
            timer.callback()

    def freeze(self) -> None:
        """Stand still."""
        self._frozen += 1

    def thaw(self) -> None:
        """Go on, once for each `freeze`; what became due meanwhile is called now."""
        self._frozen -= 1
        if not self._frozen:
            due, self._due = self._due, []
            for timer in due:
                self._ring(timer)


class Member(Instrument):
    """One process of a group, as it were."""

    def __init__(
        self, stage: Stage, history: History, script: Script, *, group: str, number: int
    ) -> None:
        self.answers = False
        """Whether it also answers questions."""
        self.group = group
        self.number = number
        self.present = False
        """Whether it takes part: it has joined, and neither left nor vanished."""
        self._crashed = False
        self._stage = stage
        self._history = history
        self._script = script
        self._clock = MemberClock(stage.clock)
        self._proxy: FaultProxy | None = None
        self.tap = Tap()
        """What it hands over to its transport."""
        self._open: set[Run] = set()
        self._runs: dict[Context, Run] = {}
        self._vanishing: asyncio.Task[None] | None = None
        self._end = Disturbance("crash", math.inf, member=number)

    # ---- life

    async def join(self, qualities: frozenset[int], settings: dict[str, object]) -> None:
        """Subscribe to the types of these qualities."""
        url = None
        if self._stage.harness.proxied_port is not None:
            self._proxy, url = await self._stage.proxy()
        derived = DERIVED if self._history.effects else ()
        self.bus = self._stage.bus(
            url=url,
            group=self.group,
            clock=self._clock,
            settings=settings,
            publishes=derived,
            tap=self.tap,
        )
        for qos in sorted(qualities):
            self._register(qos)
        if self.answers:
            self._register_answers()
        self.bus.use(self)
        await self.bus.__aenter__()
        self.present = not self._crashed
        if self._crashed and self._proxy is None:  # there was nothing to let go of before
            await self._vanish()

    def _register(self, qos: int) -> None:
        @self.bus.handle(MESSAGES[qos])
        async def handle(message: Any, context: Context) -> None:
            await self._handle(qos, message, context)

    def _register_answers(self) -> None:
        @self.bus.handle(Question)
        async def answer(question: Question, context: Context) -> str:
            run = await self._handle(2, question, context)
            return f"{run.id} in run {self._history.answering.index(run)}"

    async def drain(self) -> None:
        """Leave in order."""
        self.present = False
        await self.bus.drain()
        await self.bus.close()

    def crash(self) -> None:
        """Vanish: whatever it does from now on has no effect and reaches nobody."""
        if self._crashed:
            return
        self.present, self._crashed = False, True
        now = self._stage.clock.monotonic()
        self._end.start = now
        self._history.disturbances.append(self._end)
        for run in self._open:
            run.end = now
        if self._proxy is not None:
            self._proxy.refuse()
            self._proxy.cut()
            self._end.end = now + self._stage.lease
        else:  # in this process only the transport itself can let go
            self._vanishing = self._stage.tasks.spawn(self._vanish(), f"crash {self.number}")

    async def _vanish(self) -> None:
        with contextlib.suppress(ConfigurationError):  # not running: joining yet, or leaving
            await self.bus.transport.close()
        now = self._stage.clock.monotonic()
        self._end.end = min(self._end.end, now + self._stage.lease)
        await self.bus.close()

    async def gone(self) -> None:
        """Return once a crash has left nothing behind."""
        if self._crashed:
            await (self._vanish() if self._vanishing is None else self._vanishing)

    @property
    def busy(self) -> bool:
        """Whether a handler runs."""
        return bool(self._open)

    @property
    def proxy(self) -> FaultProxy | None:
        """What stands between it and the broker, where the harness allows that."""
        return self._proxy

    # ---- handling

    async def _handle(self, qos: int, message: Any, context: Context) -> Run:
        await self._only_if_alive()
        id_ = context.message_id
        run = Run(
            group=self.group,
            id=id_,
            qos=qos,
            member=self.number,
            attempt=context.attempt,
            deed=self._script.next(self.group, id_),
            start=self._stage.clock.monotonic(),
            intact=message.text == words(id_),
        )
        question = isinstance(message, Question)
        (self._history.answering if question else self._history.runs).append(run)
        self._runs[context] = run
        self._open.add(run)
        try:
            if self._history.effects and qos == 2:
                type_, stage = type(message).__name__, self._stage
                run.recorded = await was_recorded(self.bus, stage, type_, id_, self.group)
                await perform_effects(self.bus, self.group, context)
            await self._perform(run)
            return run
        finally:
            self._open.discard(run)
            if not self._crashed:
                run.end = self._stage.clock.monotonic()

    async def _perform(self, run: Run) -> None:
        deed = run.deed
        if deed in {"late", "late-raise"}:
            await self._stand_still()
        if deed == "slow":
            await self._stage.clock.sleep(SLOW * self._stage.lease)
        await self._only_if_alive()
        if deed == "crash":
            self.crash()
        if deed in {"crash", "hang"}:
            await asyncio.Event().wait()
        if deed == "cancel":
            raise asyncio.CancelledError
        if deed == "retry":
            raise Retry(after=self._history.backoff[1])
        if deed == "reject":
            raise Reject("it can never be handled")
        if deed in {"raise", "late-raise"}:
            raise RuntimeError("it failed")
        run.effect = True
        if deed == "crash-after":
            self.crash()
            await asyncio.Event().wait()

    async def _only_if_alive(self) -> None:
        """A member that has vanished concludes nothing, though its transport lets go a turn later
        where both are in this process."""
        if self._crashed:
            await asyncio.Event().wait()

    async def _stand_still(self) -> None:
        clock = self._stage.clock
        seconds = LATE * self._stage.lease
        now = clock.monotonic()
        # What it misses meanwhile it has to make good first, which takes its time.
        end = now + seconds + self._stage.lease
        self._history.disturbances.append(Disturbance("late", now, end, self.number))
        self._clock.freeze()
        try:
            await clock.sleep(seconds)
        finally:
            self._clock.thaw()

    # ---- watching

    def settled(self, context: Any, outcome: str) -> None:
        """Note what became of a delivery, of a handler's run or of a copy that needed none."""
        now = self._stage.clock.monotonic()
        qos = _QUALITIES.get(parse_subject(context.subject).type)
        if qos is not None:
            self._history.settled.append(Settled(self.group, context.message_id, qos, outcome, now))
        run = self._runs.get(context)
        if run is not None:
            run.word, run.settled = outcome, now

    def published(self, message_id: str, subject: str, result: PublishResult) -> None:
        """Note a dead letter that is stored."""
        where = parse_subject(subject)
        known = where.type in _QUALITIES
        if known and where.kind is Kind.DEAD and isinstance(result, Receipt):
            now = self._stage.clock.monotonic()
            self._history.parked.append(
                Parked(where.group, _QUALITIES[where.type], message_id, now)
            )
