"""Retry policies: who speaks before whom, what makes no sense, and times of their own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catga import ConfigurationError, DecodeError, Event, Reject, Retry, RetryPolicy, Router
from catga.codecs import TypeRegistry
from catga.engine.addressing import due_time
from catga.errors import ConnectionLost, PayloadTooLarge
from catga.policy import CRASH_MARGIN, Again, Park, Retries, combine
from catga.spi import (
    Capabilities,
    Capability,
    Delivery,
    Kind,
    Outgoing,
    PublishResult,
    Settle,
    SettleResult,
    Unknown,
)
from catga_inmemory.subscriptions import LogSubscription
from catga_inmemory.transport import MemoryTransport
from core.engine_kit import Order, Probe, dead_letters, eventually, run

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def half() -> float:
    return 0.5


# ---- decisions


@given(st.integers(1, 10_000), st.floats(0.001, 60), st.floats(1, 24), st.floats(0, 1))
def test_no_wait_is_shorter_than_a_tenth_or_longer_than_the_whole(
    attempt: int, base: float, times: float, chance: float
) -> None:
    rules = Retries(20_000, base, base * times)
    longest = min(base * times, base * 2.0 ** min(attempt - 1, 62))
    verdict = rules.after(attempt, ValueError(), lambda: chance)
    assert isinstance(verdict, Again)
    assert 0.0999 * longest <= verdict.delay <= longest * 1.0001


def test_the_nearest_class_of_the_error_wins() -> None:
    rules = combine(
        Retries(),
        RetryPolicy(
            by_error={
                Exception: RetryPolicy(attempts=2),
                OSError: None,
                TimeoutError: RetryPolicy(attempts=9),
            }
        ),
    )
    assert rules.after(2, ValueError(), half) == Park("attempts exhausted")
    assert rules.after(1, ConnectionResetError(), half) == Park(
        "ConnectionResetError is never retried"
    )
    assert isinstance(rules.after(8, TimeoutError(), half), Again), "it is an OSError, but nearer"
    assert isinstance(rules.after(4, asyncio.CancelledError(), half), Again), "no Exception"
    assert rules.most == 9


def test_what_is_left_open_is_taken_from_the_next_that_speaks() -> None:
    settings = Retries(7, 2.0, 100.0)
    type_ = RetryPolicy(attempts=3, by_error={KeyError: RetryPolicy(backoff_cap=50)})
    handler = RetryPolicy(backoff_base=timedelta(seconds=4), by_error={ValueError: None})
    rules = combine(settings, type_, handler)
    assert (rules.attempts, rules.base, rules.cap) == (3, 4.0, 100.0)
    assert rules.by_error == {KeyError: Retries(3, 2.0, 50.0), ValueError: None}
    assert combine(settings, None, None) == settings


def test_poison_and_rejections_are_never_tried_again() -> None:
    rules = combine(Retries(), RetryPolicy(by_error={Exception: RetryPolicy(attempts=9)}))
    assert rules.after(1, DecodeError("bad"), half) == Park("poison")
    assert rules.after(1, Reject("no"), half) == Park("rejected")


def test_what_a_handler_asks_for_counts_as_an_attempt_and_is_never_hot() -> None:
    rules = Retries(3, 1.0, 2.0)
    assert rules.after(1, Retry(after=30), half) == Again(30.0)
    assert rules.after(2, Retry(after=timedelta(minutes=5)), half) == Again(300.0)
    assert rules.after(1, Retry(after=-5), half) == Again(0.1)
    assert rules.after(2, Retry(), half) == Again(rules.backoff(2, half))
    assert rules.after(3, Retry(after=30), half) == Park("attempts exhausted")


def test_a_delivery_is_worn_out_beyond_the_attempts_and_the_margin() -> None:
    rules = combine(Retries(2), RetryPolicy(by_error={OSError: RetryPolicy(attempts=4)}))
    assert not rules.worn_out(4 + CRASH_MARGIN)
    assert rules.worn_out(5 + CRASH_MARGIN)


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": True},
        {"attempts": 1.5},
        {"backoff_base": 0},
        {"backoff_cap": timedelta(days=2)},
        {"by_error": {"ValueError": None}},
        {"by_error": {int: None}},
        {"by_error": {ValueError: 3}},
        {"by_error": {ValueError: RetryPolicy(by_error={KeyError: None})}},
    ],
    ids=str,
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        RetryPolicy(**wrong)


# ---- declarations


def test_an_annotated_retry_is_refused_as_an_annotated_qos_is() -> None:
    @attrs.frozen
    class Annotated(Event):
        retry: RetryPolicy | None = None  # type: ignore[misc]  # what is refused

    @attrs.frozen
    class NoPolicy(Event):
        retry = 5  # type: ignore[assignment]  # what is refused

    for cls in (Annotated, NoPolicy):
        with pytest.raises(ConfigurationError, match="retry"):
            TypeRegistry().register(cls)


@pytest.mark.parametrize(
    "wrong", [{"retry": 5}, {"timeout": 0}, {"timeout": -1}, {"timeout": "5s"}], ids=str
)
def test_a_handler_with_rules_that_are_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Router().handle(Order, **wrong)


def test_a_base_above_the_cap_of_the_settings_is_refused_with_the_handler() -> None:
    async def law(probe: Probe) -> None:
        bus = probe.bus({"backoff_cap": 10})

        @bus.handle(Order, retry=RetryPolicy(backoff_base=20))
        async def slowly(order: Order) -> None: ...

        with pytest.raises(ConfigurationError, match="slowly of Order"):
            async with bus:
                pass

    run(law)


def test_each_handler_has_its_own_time() -> None:
    async def law(probe: Probe) -> None:
        bus, ended = probe.bus({"handler_timeout": 10, "attempts": 1}), []

        def listen(group: str, **options: Any) -> None:
            @bus.handle(Order, group=group, **options)
            async def hang(order: Order) -> None:
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.append((group, round(probe.clock.monotonic())))

        listen("settings")
        listen("short", timeout=2)
        listen("long", timeout=timedelta(seconds=40))
        listen("endless", timeout=None)
        async with bus:
            await bus.publish(Order(1))
            await probe.pass_time(60)
            assert [name for name, _ in ended] == ["short", "settings", "long"]
            assert [at for _, at in ended] == pytest.approx([2, 10, 40], abs=2)
            draining = asyncio.create_task(bus.drain())
            await probe.pass_time(60)
            assert (await draining).abandoned == 1

    run(law)


# ---- when


@pytest.mark.parametrize(
    ("delay", "at", "due"),
    [
        (None, None, None),
        (5, None, NOW + timedelta(seconds=5)),
        (timedelta(hours=1), None, NOW + timedelta(hours=1)),
        (0, None, None),
        (-5, None, None),
        (None, NOW - timedelta(days=1), None),
        (
            None,
            (NOW + timedelta(hours=1)).astimezone(timezone(timedelta(hours=5))),
            NOW + timedelta(hours=1),
        ),
    ],
)
def test_what_is_past_is_due_at_once(delay: Any, at: Any, due: Any) -> None:
    assert due_time(delay, at, NOW) == due


@pytest.mark.parametrize(
    ("delay", "at"),
    [(1, NOW), ("1", None), (True, None), (None, datetime(2099, 1, 1)), (None, 12345)],  # noqa: DTZ001 - refused
)
def test_a_time_that_is_none_is_refused(delay: Any, at: Any) -> None:
    with pytest.raises(ConfigurationError):
        due_time(delay, at, NOW)


def test_a_publish_waits_for_the_handlers_but_not_for_the_delay() -> None:
    async def law(probe: Probe) -> None:
        bus, seen = probe.bus({"wait_handled": True}), []

        @bus.handle(Order)
        async def handle(order: Order) -> None:
            seen.append(order.number)

        async with bus:
            await bus.publish(Order(1), delay=3600)
            await bus.publish(Order(2))
            assert seen == [2]
            await probe.pass_time(3599)
            assert seen == [2]
            await probe.pass_time(2)
            assert seen == [2, 1]

    run(law)


# ---- parking, where a transport cannot do it in one step, and where it can


async def fail(order: Order) -> None:
    raise ValueError("never")


def test_without_one_step_the_letter_is_stored_before_its_original_is_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened: list[str] = []
    publish, settle = MemoryTransport.publish, LogSubscription.settle

    async def note_publish(self: Any, batch: Sequence[Outgoing]) -> list[PublishResult]:
        results = await publish(self, batch)
        happened.extend("stored" for each in batch if each.subject.kind is Kind.DEAD)
        return results

    async def note_settle(self: Any, batch: Sequence[Settle]) -> list[SettleResult]:
        happened.append("settled")
        return await settle(self, batch)

    less = Capabilities(frozenset(Capability) - {Capability.PARK})
    monkeypatch.setattr(MemoryTransport, "capabilities", property(lambda self: less))
    monkeypatch.setattr(MemoryTransport, "publish", note_publish)
    monkeypatch.setattr(LogSubscription, "settle", note_settle)

    async def law(probe: Probe) -> None:
        bus = probe.bus({"attempts": 1})
        bus.handle(Order)(fail)
        async with bus:
            await bus.publish(Order(1))
            await eventually(lambda: bus.counts()["tests/Order"].get("dead-letter"))
        assert happened == ["stored", "settled"]

    run(law)


@pytest.mark.parametrize("error", [PayloadTooLarge(2, 1), None], ids=["large", "unknown"])
def test_what_cannot_be_parked_in_one_step_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, error: PayloadTooLarge | None
) -> None:
    asked: list[dict[str, Any]] = []
    park = LogSubscription.park

    async def refuse(self: Any, batch: Sequence[tuple[Delivery, Outgoing]]) -> list[SettleResult]:
        asked.extend(json.loads(letter.body)["data"] for _, letter in batch)
        if len(asked) == 1:
            return [Unknown(error or ConnectionLost("gone"))]
        return await park(self, batch)

    monkeypatch.setattr(LogSubscription, "park", refuse)

    async def law(probe: Probe) -> None:
        bus = probe.bus({"attempts": 1})
        bus.handle(Order)(fail)
        async with bus:
            await bus.publish(Order(1))
            await probe.pass_time(1)
            assert bus.counts()["tests/Order"]["dead-letter"] == 1
            assert len(dead_letters(bus, "Order")) == 1
        first, second = (each["body_base64"] for each in asked)
        assert first
        assert second == ("" if error else first)
        assert bool(asked[1]["body_left_out_bytes"]) is (error is not None)

    run(law)
