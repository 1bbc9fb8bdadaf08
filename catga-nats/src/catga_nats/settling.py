"""Acknowledgements: what is held, until when, and what is said about it to the server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from catga.errors import ConnectionLost, TransportError
from catga.spi import (
    Ack,
    Clock,
    Delivery,
    Done,
    Lost,
    Nack,
    Settle,
    Settlement,
    SettleResult,
    Unknown,
)
from catga_nats.client import plain_frame
from catga_nats.connection import Connection
from catga_nats.errors import missing_error
from catga_nats.mux import Answer, Batch, Missing

__all__ = ["Settler", "ack_payload"]

_DONE, _LOST = Done(), Lost()
_CONFIRM_SECONDS = 2.0
"""A server that was killed has forgotten some of its last deliveries, and never answers them."""
_LONGEST_DELAY = 100 * 365 * 86_400.0
"""The server reads nanoseconds into 64 bits, and takes what does not fit for no delay."""
_REASON_SINCE = (2, 10, 4)
"""Older servers ignore a `+TERM` with a reason behind it. Source: NATS 2.10.4 release notes."""


def ack_payload(outcome: Settlement, version: tuple[int, int, int]) -> bytes:
    """Return what settles a delivery. Source: docs.nats.io, "Acknowledging Messages"."""
    if isinstance(outcome, Ack):
        return b"+ACK"
    if isinstance(outcome, Nack):
        if outcome.delay <= 0:
            return b"-NAK"
        # Always with our own delay: a bare nak ignores the consumer's backoff.
        return b'-NAK {"delay": %d}' % int(min(outcome.delay, _LONGEST_DELAY) * 1e9)
    reason = " ".join(outcome.reason.split())[:200]
    if not reason or version < _REASON_SINCE:
        return b"+TERM"
    return f"+TERM {reason}".encode(errors="replace")


class Settler:
    """Keeps the deliveries that were handed out; `Delivery.token` is the ack subject while a
    delivery is ours, None afterwards.

    No broker fences a late settlement: after the lease, by our own clock, nothing is sent.
    """

    def __init__(self, connection: Connection, clock: Clock, lease: float) -> None:
        self._connection = connection
        self._clock = clock
        self._held: set[Delivery] = set()
        self.lease = lease

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, deliveries: Iterable[Delivery]) -> None:
        """Count these as handed out."""
        self._held.update(deliveries)

    def doubt(self) -> None:
        """Count nothing as handed out any more; whoever has begun on one may settle it still."""
        for delivery in self._held:
            delivery.doubtful = True
        self._held.clear()

    def holds(self, delivery: Delivery) -> bool:
        """Say whether this delivery is still its receiver's, by our own clock."""
        return delivery.token is not None and delivery.lease_until > self._clock.monotonic()

    def release_expired(self) -> None:
        """Stop counting what its receiver has let expire."""
        now = self._clock.monotonic()
        for delivery in [each for each in self._held if each.lease_until <= now]:
            self._take(delivery, now)

    def _take(self, delivery: Delivery, now: float) -> bytes | None:
        """Return the ack subject, for this once; None when the delivery is not ours any more."""
        subject: bytes | None = delivery.token
        delivery.token = None
        self._held.discard(delivery)
        return None if delivery.lease_until <= now else subject

    def _restore(self, delivery: Delivery, subject: bytes) -> None:
        """It is not known whether the server heard it: it may be settled again."""
        delivery.token = subject
        self._held.add(delivery)

    async def settle(self, batch: Sequence[Settle]) -> list[SettleResult]:
        """Settle each; those to be confirmed are waited for together."""
        client, version = self._connection.client, self._connection.version
        now = self._clock.monotonic()
        results: list[SettleResult] = [_LOST] * len(batch)
        confirming = Batch(self._connection.mux)
        said: list[tuple[int, bytes]] = []
        waiting: list[tuple[int, bytes]] = []
        saying: list[bytes] = []
        for place, entry in enumerate(batch):
            subject = self._take(entry.delivery, now)
            if subject is None:
                continue
            said.append((place, subject))
            results[place] = _DONE
            payload, reply = ack_payload(entry.outcome, version), ""
            if entry.confirm:
                waiting.append((place, subject))
                reply = confirming.expect(subject.decode())
            saying.append(plain_frame(subject, payload, reply))
        if not said:
            return results
        if not await client.write(saying):
            confirming.unsent(0)
            unsent = Unknown(ConnectionLost("not connected: nothing was settled"))
            for place, subject in said:
                results[place] = unsent
                self._restore(batch[place].delivery, subject)
            return results
        answers = await confirming.wait(_CONFIRM_SECONDS)
        for (place, subject), answer in zip(waiting, answers, strict=True):
            error = _unconfirmed(answer, "a settlement")
            if error is not None:
                results[place] = Unknown(error)
                self._restore(batch[place].delivery, subject)
        return results

    async def extend(self, batch: Sequence[Delivery]) -> list[SettleResult]:
        """Renew each lease that is still ours, once the server has said that it heard of it: what
        is written into a silent connection renews nothing."""
        now = self._clock.monotonic()
        results: list[SettleResult] = [_LOST] * len(batch)
        confirming = Batch(self._connection.mux)
        ours: list[int] = []
        saying: list[bytes] = []
        for place, delivery in enumerate(batch):
            if delivery.token is None or delivery.lease_until <= now:
                self._take(delivery, now)
            else:
                ours.append(place)
                reply = confirming.expect(delivery.token.decode())
                saying.append(plain_frame(delivery.token, b"+WPI", reply))
        if saying and not await self._connection.client.write(saying):
            confirming.unsent(0)
        # Not for longer, or one that is not answered lets the lease of the others end here.
        answers = await confirming.wait(min(_CONFIRM_SECONDS, self.lease / 3))
        ended = self._clock.monotonic()
        for place, answer in zip(ours, answers, strict=True):
            delivery, error = batch[place], _unconfirmed(answer, "an extension")
            if delivery.lease_until <= ended:
                self._take(delivery, ended)
            elif error is not None:
                results[place] = Unknown(error)
            else:
                results[place] = _DONE
                delivery.lease_until = now + self.lease
        return results

    async def give_back(self, deliveries: Iterable[Delivery]) -> None:
        """Let others have these at once."""
        now = self._clock.monotonic()
        subjects = [self._take(delivery, now) for delivery in deliveries]
        back = [plain_frame(subject, b"-NAK") for subject in subjects if subject is not None]
        if back:
            await self._connection.client.write(back)


def _unconfirmed(answer: Answer, what: str) -> TransportError | None:
    if isinstance(answer, Missing):
        return missing_error(answer, what)
    if answer.headers and answer.headers.get("Status") == "503":
        return ConnectionLost(f"nobody took {what}: no leader, or the consumer is gone")
    return None
