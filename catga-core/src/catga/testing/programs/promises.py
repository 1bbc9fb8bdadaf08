"""The laws of what handlers do at QoS 2 besides: effects, derived messages, responses."""

from __future__ import annotations

from collections.abc import Iterator

from catga.testing.programs.history import History, Run

__all__ = [
    "derived_once",
    "each_effect_once",
    "no_early_record",
    "one_answer",
    "recorded_when_completed",
]


def each_effect_once(history: History) -> Iterator[str]:
    """What a handler wrote through its transaction is there once when its group completed the
    message, and not at all otherwise, whatever crashed."""
    books = history.books
    if books is None or books.effects is None:
        return
    completed = _acknowledged(history)
    for place, count in books.effects.items():
        if count > 1:
            yield f"{_words(place)} has {count} effects"
        if count and place not in books.records:
            yield f"{_words(place)} has an effect and is not recorded as completed"
        if not count and history.effects and place in completed | books.records:
            yield f"{_words(place)} was completed without its effect"
        if books.sealed is not None and history.effects and books.sealed[place] != count:
            yield f"{_words(place)}: {books.sealed[place]} published by {count} commits"


def recorded_when_completed(history: History) -> Iterator[str]:
    """What was acknowledged is recorded as completed by that group, and what is recorded some run
    of that group had completed."""
    books = history.books
    if books is None:
        return
    for place in _acknowledged(history) - books.records:
        yield f"{_words(place)} was acknowledged and is not recorded"
    there = {(run.group, run.id) for run in _runs(history) if run.effect}
    for place in books.records - there:
        yield f"{_words(place)} is recorded, and no run ever came to its end"


def no_early_record(history: History) -> Iterator[str]:
    """No record is there before a run of that group has succeeded."""
    for run in _runs(history):
        others = (
            other
            for other in _runs(history)
            if (other.group, other.id) == (run.group, run.id) and other is not run
            if other.start <= run.start
        )
        if run.recorded and not any(other.effect for other in others):
            yield f"{_words((run.group, run.id))} was recorded before it was handled"


def derived_once(history: History) -> Iterator[str]:
    """What a handler publishes is stored once for each message and group, over all its runs."""
    books = history.books
    if books is None:
        return
    for place, count in books.echoes.items():
        if count > 1:
            yield f"{_words(place)}: what it published is stored {count} times"
    if history.effects:
        for place in _acknowledged(history):
            if not books.echoes[place]:
                yield f"{_words(place)}: what it published is lost"


def one_answer(history: History) -> Iterator[str]:
    """All responses to one request are the same, and who asks again in the end gets it, when a
    run was completed: one that comes too late for whoever asked is not begun."""
    answers: dict[str, set[str]] = {}
    for each in history.asked:
        if each.answer is not None:
            answers.setdefault(each.id, set()).add(each.answer)
    completed = {run.id for run in history.answering if run.word == "ack"} | answers.keys()
    if history.books is not None and history.books.effects is not None:
        completed |= {id_ for (_, id_), count in history.books.effects.items() if count}
    for each in history.asked:
        if each.last and each.answer is None and each.id in completed:
            yield f"{each.id} was asked again in the end and got {each.error}"
    for id_, different in answers.items():
        if len(different) > 1:
            yield f"{id_} was answered differently: {', '.join(sorted(different))}"


def _runs(history: History) -> list[Run]:
    return [*(run for run in history.runs if run.qos == 2), *history.answering]


def _acknowledged(history: History) -> set[tuple[str, str]]:
    return {
        (each.group, each.id) for each in history.settled if each.qos == 2 and each.word == "ack"
    }


def _words(place: tuple[str, str]) -> str:
    group, id_ = place
    return f"{id_} in {group}"
