"""Settling: what handlers decided, carried out in batches, in the order a promise needs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

import attrs

from catga.engine.deadletters import DeadLetter
from catga.engine.outcomes import Outcomes
from catga.engine.publishing import Publisher
from catga.engine.work import Feed, Work
from catga.errors import PayloadTooLarge, TransportError
from catga.ground.clock import Clock
from catga.spi import (
    Ack,
    Capabilities,
    Capability,
    Commit,
    Conflict,
    Done,
    InboxStore,
    Lost,
    Nack,
    Receipt,
    Refused,
    Reject,
    Rejected,
    SettleResult,
    Unknown,
)

__all__ = ["Settler"]

_log = logging.getLogger("catga")
_WORDS: Mapping[type, str] = {
    Ack: "ack",
    Nack: "nack",
    Reject: "dead-letter",
    Lost: "lost",
    Unknown: "unknown",
}
_PAUSE = 0.1
_LONGEST_PAUSE = 1.0
_STORE_AGAIN = 5.0
"""Seconds until a message is tried again whose dead letter could not be stored."""
_RECORD_AGAIN = 1.0
"""Seconds until a message comes again whose completion could not be recorded."""
_ALL_DONE, _ALL_ACKS = frozenset({Done}), frozenset({Ack})

Attempt: TypeAlias = Callable[[list[Work]], Awaitable[list[SettleResult]]]
"""One step for several deliveries."""


async def _tried(attempt: Attempt, batch: list[Work]) -> list[SettleResult]:
    """Return what became of each; a transport that raises, whatever it raises, has not said."""
    try:
        return await attempt(batch)
    except TransportError as error:
        return [Unknown(error)] * len(batch)
    except Exception as error:
        _log.exception("settling met what nobody foresaw, and is tried again")
        return [Unknown(TransportError(f"settling failed: {error!r}"))] * len(batch)


def _given_back(work: Work, seconds: float) -> Work:
    work.outcome = Nack(seconds)
    return work


def _without_body(letter: DeadLetter) -> DeadLetter:
    """Return what is left of a letter that is too large; its original is still in the log."""
    return attrs.evolve(letter, body=b"", body_left_out=len(letter.body))


class Settler:
    """Carries out decisions for one feed, in batches, while handlers go on.

    The order is the promise: a dead letter is stored before its original is settled, a completion
    is recorded before its delivery is acknowledged.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        inbox: InboxStore | None,
        capabilities: Capabilities,
        publisher: Publisher,
        clock: Clock,
        source: str,
        outcomes: Outcomes,
        on_uncommitted: Callable[[Work, Conflict | Refused], None],
    ) -> None:
        self._feed = feed
        self._inbox = inbox
        self._commits = Capability.COMMIT in capabilities
        self._parks = Capability.PARK in capabilities
        self._publisher = publisher
        self._clock = clock
        self._source = source
        self._outcomes = outcomes
        self._on_uncommitted = on_uncommitted
        self._decided: list[Work] = []
        self._wanted = asyncio.Event()
        self._closing = False

    def add(self, work: Work) -> None:
        """Take what is decided; it is carried out with the next batch."""
        if not self._decided:  # whoever carries them out knows of the others
            self._wanted.set()
        self._decided.append(work)

    async def run(self) -> None:
        """Carry out decisions until closed and nothing is left; more than one may do that."""
        while True:
            if not self._decided:
                if self._closing:
                    return
                self._wanted.clear()
                await self._wanted.wait()
                continue
            batch, self._decided = self._decided, []
            try:
                await self._carry_out(batch)
            except Exception:
                _log.exception("settling failed; the leases will end by themselves")
                for work in batch:
                    self._off_hands(work, Unknown(TransportError("settling failed")))

    def close(self) -> None:
        """Let `run` end once everything decided so far is carried out."""
        self._closing = True
        self._wanted.set()

    async def _carry_out(self, batch: list[Work]) -> None:
        plain = [work for work in batch if work.dead_letter is None and work.record is None]
        if len(plain) == len(batch):  # almost always
            await self._settle(plain)
            return
        parking = [work for work in batch if work.dead_letter is not None]
        completing = [w for w in batch if w.record is not None and w.dead_letter is None]
        await self._keep_failures([work for work in parking if work.record is not None])
        if parking and self._parks:
            plain += await self._park(parking)
        elif parking:
            plain += await self._publish_letters(parking)
        # Effects are only ever there where they can be committed (`Context.transaction`).
        joint, apart = completing, list[Work]()
        if not self._commits:
            joint = [work for work in completing if work.effects is not None]
            apart = [work for work in completing if work.effects is None]
        if joint:
            await self._commit(joint)
        if apart:
            plain += await self._record(apart)
        if plain:
            await self._settle(plain)

    async def _keep_failures(self, batch: list[Work]) -> None:
        """Keep how requests failed before their dead letters are stored: from then on nobody has
        the message any more who could."""
        if not batch or self._inbox is None:
            return
        inbox = self._inbox

        async def attempt(part: Sequence[Work]) -> list[SettleResult]:
            return await inbox.record([work.record for work in part if work.record is not None])

        for result in await self._persist(batch, attempt, until_lease_ends=False):
            if isinstance(result, Unknown):
                _log.error("how a request failed could not be kept: %s", result.error)

    async def _park(self, batch: list[Work]) -> list[Work]:
        """Store the dead letters and settle, in one step; what could not be stored is nacked."""
        letters = {work: work.dead_letter for work in batch if work.dead_letter is not None}

        async def attempt(part: Sequence[Work]) -> list[SettleResult]:
            pairs = [(work.delivery, letters[work].outgoing(self._source)) for work in part]
            results = await self._feed.subscription.park(pairs)
            for work, (_, letter), result in zip(part, pairs, results, strict=True):
                if isinstance(result, Done):
                    self._publisher.tell(letter, Receipt(letter.message_id))
                if isinstance(result, Unknown) and isinstance(result.error, PayloadTooLarge):
                    letters[work] = _without_body(letters[work])
            return results

        # Once more, and no longer: others wait behind it for their settlement.
        results = await self._persist(batch, attempt, until_lease_ends=False)
        left = []
        for work, result in zip(batch, results, strict=True):
            if isinstance(result, Unknown):
                _log.error("a dead letter could not be stored: %s", result.error)
                left.append(_given_back(work, _STORE_AGAIN))
            else:
                self._off_hands(work, result)
        return left

    async def _publish_letters(self, batch: list[Work]) -> list[Work]:
        """Store the dead letters; what could not be stored is nacked instead of rejected."""
        letters = [work.dead_letter for work in batch if work.dead_letter is not None]
        results = await self._publisher.send([one.outgoing(self._source) for one in letters])
        for i, result in enumerate(results):
            if isinstance(result, Rejected) and isinstance(result.error, PayloadTooLarge):
                smaller = _without_body(letters[i])
                results[i] = (await self._publisher.send([smaller.outgoing(self._source)]))[0]
        settled = []
        for work, result in zip(batch, results, strict=True):
            if isinstance(result, Receipt):
                settled.append(work)
            else:
                _log.error("a dead letter could not be stored: %s", result.error)
                settled.append(_given_back(work, _STORE_AGAIN))
        return settled

    async def _record(self, batch: list[Work]) -> list[Work]:
        """Record completions; what is not surely recorded is not acknowledged."""
        if self._inbox is None:
            raise TransportError("there is no store for completion records")
        inbox = self._inbox

        async def attempt(part: Sequence[Work]) -> list[SettleResult]:
            return await inbox.record([work.record for work in part if work.record is not None])

        recorded = await self._persist(batch, attempt)
        return [
            work if isinstance(result, Done) else _given_back(work, _RECORD_AGAIN)
            for work, result in zip(batch, recorded, strict=True)
        ]

    async def _commit(self, batch: list[Work]) -> None:
        """Record and acknowledge in one step, where the transport can."""

        async def attempt(part: Sequence[Work]) -> list[SettleResult]:
            return await self._feed.subscription.commit(
                [Commit(w.delivery, w.record, w.effects) for w in part if w.record is not None]
            )

        results = await self._persist(batch, attempt)
        for work, result in zip(batch, results, strict=True):
            if isinstance(result, Done) and result.before:
                # What was answered then is kept; what was worked out now was not written.
                work.reply = None
            elif isinstance(result, Done) and work.effects is not None:
                for outgoing in work.effects.outgoing:
                    self._publisher.tell(outgoing, Receipt(outgoing.message_id))
        if _ALL_DONE.issuperset(map(type, results)):
            self._outcomes.acknowledged(batch)
            return
        for work, result in zip(batch, results, strict=True):
            if isinstance(result, Conflict | Refused):
                self._on_uncommitted(work, result)
            else:
                self._off_hands(work, result)

    async def _settle(self, batch: list[Work]) -> None:
        # Once more, and no longer: the end of the lease makes the rest good by itself.
        settle = self._feed.subscription.settle
        results = await self._persist(batch, settle, until_lease_ends=False)
        all_done = _ALL_DONE.issuperset(map(type, results))
        if all_done and _ALL_ACKS.issuperset([type(work.outcome) for work in batch]):
            self._outcomes.acknowledged(batch)  # almost always
            return
        for work, result in zip(batch, results, strict=True):
            self._off_hands(work, result)

    async def _persist(
        self,
        batch: list[Work],
        attempt: Attempt,
        *,
        until_lease_ends: bool = True,
    ) -> list[SettleResult]:
        """Try, and try again what stayed unknown: every one of these steps may be repeated.

        A completion that is not recorded would be handled again, so it is tried for as long as
        its delivery is ours.
        """
        results = await _tried(attempt, batch)
        pause = _PAUSE
        while Unknown in set(map(type, results)):
            again = [i for i, result in enumerate(results) if isinstance(result, Unknown)]
            await self._clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            now = self._clock.monotonic()
            ours = [i for i in again if batch[i].delivery.lease_until > now]
            if not ours:
                break
            repeated = await _tried(attempt, [batch[i] for i in ours])
            for i, result in zip(ours, repeated, strict=True):
                results[i] = result
            if not until_lease_ends:
                break
        return results

    def _off_hands(self, work: Work, result: SettleResult) -> None:
        self._outcomes.off_hands(
            work, _WORDS[type(work.outcome if type(result) is Done else result)]
        )
