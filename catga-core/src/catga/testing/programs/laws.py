"""The laws: pure functions from what happened to what was broken.

Every one is about one promise of the delivery contract and takes the whole history. What a fault
excuses is named where it is excused: without faults the laws are exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise

import attrs

from catga.testing.programs.history import Copy, History, Run
from catga.testing.programs.promises import (
    derived_once,
    each_effect_once,
    no_early_record,
    one_answer,
    recorded_when_completed,
)

__all__ = ["LAWS", "Violation", "broken"]

Law = Callable[[History], Iterator[str]]
_ROUNDING = 1e-6
"""Seconds that adding up may be off."""
_FAILURES = frozenset({"raise", "retry", "hang", "cancel", "late-raise"})


@attrs.frozen
class Violation:
    """One law that a history breaks, and how."""

    law: str
    words: str


def broken(history: History) -> list[Violation]:
    """Return every law that `history` breaks."""
    found = ((law.__name__, words) for law in LAWS.values() for words in sorted(set(law(history))))
    return [Violation(name, words) for name, words in found]


def _all_sightings(history: History) -> list[Run | Copy]:
    return [*history.runs, *history.copies]


# ---- every quality


def only_what_was_published(history: History) -> Iterator[str]:
    """Only published ids are handled and stored, and what they hold is what was published."""
    known = {(each.id, each.qos) for each in history.published}
    for each in _all_sightings(history):
        where = "stored" if not isinstance(each, Run) else f"handled by {each.group}"
        if (each.id, each.qos) not in known:
            yield f"{each.id} was never published at QoS {each.qos}, but {where}"
        elif not each.intact:
            yield f"{each.id} was {where} with other content"


def what_was_refused_stays_away(history: History) -> Iterator[str]:
    """A rejected publish surely stored nothing."""
    refused = {each.id for each in history.published} - {
        each.id for each in history.published if each.outcome != "rejected"
    }
    for each in _all_sightings(history):
        if each.id in refused:
            yield f"{each.id} was rejected every time, but it is there"


def it_comes_to_rest(history: History) -> Iterator[str]:
    """After the last fault everything ends: no handler runs on, nothing is tried for ever."""
    if not history.quiet:
        yield "it never came to rest"


# ---- QoS 0


def at_most_once(history: History) -> Iterator[str]:
    """At QoS 0 every call of publish reaches a group once or not at all."""
    calls = Counter(each.id for each in history.published if each.qos == 0)
    for (group, id_), runs in _by_group(history, 0):
        if len(runs) > calls[id_]:
            yield f"{group} got {id_} {len(runs)} times for {calls[id_]} publishes"


def live_members_get_it(history: History) -> Iterator[str]:
    """At QoS 0, with no fault and a member that listens, exactly once."""
    got = Counter((run.group, run.id) for run in history.runs if run.qos == 0)
    wanted = Counter(
        (group, each.id)
        for each in history.published
        if each.qos == 0 and each.outcome == "accepted" and history.calm(each.id)
        for group in each.live
    )
    for (group, id_), count in wanted.items():
        if got[group, id_] < count:
            yield f"{group} was there and got {id_} {got[group, id_]} of {count} times"


# ---- QoS 1 and 2


def at_least_once(history: History) -> Iterator[str]:
    """What was accepted has its effect in every group, or is a dead letter there."""
    there = {(run.group, run.id) for run in history.runs if run.effect}
    # The broker's word goes first: a member that dies while it parks is not told what came of it.
    dead = history.letters
    if dead is None:
        said = (each for each in history.settled if each.word == "dead-letter")
        dead = frozenset((each.group, each.id) for each in said)
    for id_ in _accepted(history):
        for group in history.groups:
            if (group, id_) not in there | dead:
                yield f"{id_} was accepted, and lost for {group}"


def nothing_is_acknowledged_unhandled(history: History) -> Iterator[str]:
    """An acknowledgement follows an effect in the same group."""
    effects = {
        (run.group, run.id): run.end
        for run in sorted(history.runs, key=lambda run: -run.end)
        if run.effect
    }
    for each in history.settled:
        done = effects.get((each.group, each.id))
        if each.qos and each.word == "ack" and (done is None or done > each.at):
            yield f"{each.group} acknowledged {each.id} before it was handled"


def every_repeat_has_a_cause(history: History) -> Iterator[str]:
    """At QoS 1 an effect comes twice only for a message that is stored twice, or whose
    acknowledgement a fault may have kept from the broker."""
    copies = Counter(each.id for each in history.copies)
    yield from _repeats(history, 1, copies)


def exactly_once(history: History) -> Iterator[str]:
    """At QoS 2 there is one effect per group, and another only for a run that a fault touched
    before its completion was recorded: a crash in mid-handler can repeat its effects."""
    yield from _repeats(history, 2, Counter())


def done_is_done(history: History) -> Iterator[str]:
    """At QoS 2 nothing starts after a completion was confirmed, whatever fails then: at most what
    another member, in whose hands it came meanwhile, had looked up just before."""
    for (group, id_), runs in _by_group(history, 2):
        done = [
            run.settled + (history.flight if history.disturbed(run) else 0.0)
            for run in runs
            if run.word == "ack"
        ]
        if done and runs[-1].start > min(done):
            yield f"{group} ran {id_} again after it was acknowledged"


def stored_once(history: History) -> Iterator[str]:
    """At QoS 2 one id is stored once, at QoS 1 at most as often as it was published."""
    copies = Counter((each.id, each.qos) for each in history.copies)
    calls = Counter(each.id for each in history.published)
    accepted = _accepted(history)
    for (id_, qos), count in copies.items():
        most = 1 if qos == 2 else calls[id_]
        # The bus itself repeats a publish whose answer was lost: at QoS 1 that may store it again.
        if count > most and (qos == 2 or history.calm(id_)):
            yield f"{id_} is stored {count} times after {calls[id_]} publishes at QoS {qos}"
    for id_ in accepted:
        if not any(id_ == stored for stored, _ in copies):
            yield f"{id_} was accepted and is not stored"


def nothing_comes_before_its_time(history: History) -> Iterator[str]:
    """What is delayed runs nowhere before its time, whatever fails, unless it was published at
    once as well; and at QoS 2 the first copy is the one that counts."""
    for id_ in {each.id for each in history.published}:
        calls = [each for each in history.published if each.id == id_]
        if calls[0].qos == 2 and calls[0].outcome == "accepted":
            calls = calls[:1]
        due = min(each.due for each in calls)
        for run in history.runs:
            if run.id == id_ and run.start < due - max(history.grain, _ROUNDING):
                yield f"{run.group} had {id_} {due - run.start:.4f} s before its time"


def receipts_tell_duplicates(history: History) -> Iterator[str]:
    """At QoS 2 of all receipts for one id exactly one says that it is new."""
    for id_ in {each.id for each in history.published if each.qos == 2}:
        calls = [each for each in history.published if each.id == id_]
        new = sum(each.outcome == "accepted" and not each.duplicate for each in calls)
        # After a lost answer the first receipt can be that of the repeat.
        clear = history.calm(id_) and all(each.outcome == "accepted" for each in calls)
        if new > 1 or (clear and new != 1):
            yield f"{new} of {len(calls)} receipts say that {id_} was new"


def attempts_count_up(history: History) -> Iterator[str]:
    """The first attempt is 1, the next is one more; given back by a member that leaves, or lost
    with one, an attempt is used up without a run. A replay begins anew, and where a broker that
    ended forgot that what was replayed had been settled, both go on side by side."""
    copies = Counter(each.id for each in history.copies)
    exact = not history.drains
    for (group, id_), runs in _by_group(history, 1, 2):
        if copies[id_] > 1:
            continue
        calm = history.calm(id_)
        attempts = [run.attempt for run in runs]
        if attempts[0] < 1 or (exact and calm and attempts[0] != 1):
            yield f"{group} had {id_} first in attempt {attempts[0]}"
        replays = history.perhaps_replayed[group, id_]
        if calm:
            anew = [after for before, after in pairwise(attempts) if after <= before]
            skips = any(after > before + 1 for before, after in pairwise(attempts))
            wrong = len(anew) > replays or (exact and (skips or set(anew) - {1}))
        else:
            # While this whole process stood still leases ended one after the other, and what came
            # of that meets several members at once. Nor does a member know how long a delivery
            # was on its way: over a slow line it believes in the lease for so much longer.
            late = [each for each in history.disturbances if each.kind in {"stall", "Delay"}]
            in_time = [run.attempt for run in runs if not any(each.touches(run) for each in late)]
            wrong = _most_falling(in_time) > 1 + replays
        if wrong:
            yield f"{group} had {id_} in attempts {attempts}"


def _most_falling(attempts: list[int]) -> int:
    """Return the length of the longest part, in order, of which each is less than the one before:
    as many counts going up it takes, side by side, to give these attempts (Dilworth)."""
    longest: list[int] = []
    for number, attempt in enumerate(attempts):
        above = [longest[k] for k in range(number) if attempts[k] > attempt]
        longest.append(1 + max(above, default=0))
    return max(longest, default=0)


def a_failure_waits(history: History) -> Iterator[str]:
    """Between a failure and the next attempt lies at least the least of the backoff, or what the
    handler asked for."""
    base, cap = history.backoff
    copies = Counter(each.id for each in history.copies)
    for (group, id_), runs in _by_group(history, 1, 2):
        if copies[id_] > 1:
            continue
        for before, after in pairwise(runs):
            least = 0.1 * min(cap, base * 2.0 ** (before.attempt - 1))
            if before.deed == "retry":
                least = cap
            waited = after.start - before.end
            failed = before.deed in _FAILURES and before.word == "nack"
            if (
                failed
                and not history.disturbed(before)
                and waited < least - max(history.grain, _ROUNDING)
            ):
                yield f"{group} tried {id_} again after {waited:.4f} s, not {least:.4f} s"


def one_at_a_time(history: History) -> Iterator[str]:
    """A message is not run by two members at once while both are well: leases are renewed."""
    copies = Counter(each.id for each in history.copies)
    for (group, id_), runs in _by_group(history, 1, 2):
        if copies[id_] > 1:
            continue
        for before, after in pairwise(runs):
            overlap = before.end - after.start
            if overlap > 0 and not (history.disturbed(before) or history.disturbed(after)):
                yield f"{group} ran {id_} in {before.member} and {after.member} at once"


def the_last_failure_parks(history: History) -> Iterator[str]:
    """A rejected message is parked at once, a failing one after its last attempt; neither is run
    again, and what is tried before is not given up."""
    copies = Counter(each.id for each in history.copies)
    for run in history.runs:
        if not run.qos or history.disturbed(run) or copies[run.id] > 1:
            continue
        last = run.attempt >= history.attempts and run.deed in _FAILURES
        dead = run.word == "dead-letter"
        if dead != (last or run.deed == "reject"):
            yield f"{run.group}: {run.id}, {run.deed} in attempt {run.attempt}, ended as {run.word}"


def parked_before_settled(history: History) -> Iterator[str]:
    """A dead letter is stored before its original is settled."""
    for each in history.settled:
        if each.word != "dead-letter" or not each.qos:
            continue
        kind = (each.group, each.qos)
        dead = {
            other.id
            for other in history.settled
            if other.word == "dead-letter" and (other.group, other.qos) == kind
            if other.at <= each.at
        }
        letters = {
            other.key
            for other in history.parked
            if (other.group, other.qos) == kind and other.at <= each.at
        }
        if len(letters) < len(dead):
            yield f"{each.group} gave up {each.id} before its dead letter was stored"


def the_books_balance(history: History) -> Iterator[str]:
    """Per group: every stored copy, and every replay to that group, was acknowledged or
    dead-lettered, once, and nothing is in flight. A fault can keep the word from the member or
    have the copy settled again."""
    ended = Counter(
        (each.group, each.id) for each in history.settled if each.word in {"ack", "dead-letter"}
    )
    words = {each.word for each in history.settled if each.qos and history.calm(each.id)}
    if strange := words & {"lost", "unknown"}:
        yield f"without any fault a delivery was {' and '.join(sorted(strange))}"
    copies = Counter(each.id for each in history.copies)
    for id_, count in copies.items():
        for group in history.groups if history.calm(id_) else ():
            count_there = count + history.replayed[group, id_]
            if ended[group, id_] != count_there:
                yield f"{group} settled {id_} {ended[group, id_]} times, of {count_there} copies"


# ---- the parts


def _accepted(history: History) -> set[str]:
    return {each.id for each in history.published if each.qos and each.outcome == "accepted"}


def _by_group(history: History, *qualities: int) -> Iterator[tuple[tuple[str, str], list[Run]]]:
    """Yield the runs of these qualities by group and id, in the order of their starts."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in history.runs:
        if run.qos in qualities:
            found.setdefault((run.group, run.id), []).append(run)
    yield from found.items()


def _repeats(history: History, qos: int, copies: Counter[str]) -> Iterator[str]:
    for (group, id_), runs in _by_group(history, qos):
        effects = [run for run in runs if run.effect]
        excused = sum(history.disturbed(run) for run in effects)
        if qos == 1:
            excused += sum(_forgotten(history, *pair) for pair in pairwise(effects))
        most = max(1, copies[id_]) + excused
        if len(effects) > most:
            yield f"{id_} had {len(effects)} effects in {group}, at most {most} have a cause"


def _forgotten(history: History, before: Run, after: Run) -> bool:
    """Say whether a broker that ended may have forgotten an acknowledgement that it had had: at
    QoS 1 it may write them down late."""
    if history.disturbed(after):
        return False  # excused already
    restarts = (each.start for each in history.disturbances if each.kind == "Restart")
    return any(before.settled <= start <= after.start for start in restarts)


_EVERY: tuple[Law, ...] = (
    only_what_was_published,
    what_was_refused_stays_away,
    it_comes_to_rest,
    at_most_once,
    live_members_get_it,
    at_least_once,
    nothing_is_acknowledged_unhandled,
    every_repeat_has_a_cause,
    exactly_once,
    done_is_done,
    stored_once,
    nothing_comes_before_its_time,
    receipts_tell_duplicates,
    attempts_count_up,
    a_failure_waits,
    one_at_a_time,
    the_last_failure_parks,
    parked_before_settled,
    the_books_balance,
    each_effect_once,
    recorded_when_completed,
    no_early_record,
    derived_once,
    one_answer,
)
LAWS: dict[str, Law] = {law.__name__: law for law in _EVERY}
