"""Scripted programs: what no random search must be lucky to meet, a name for each promise."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from catga.testing.programs.steps import (
    Again,
    Ask,
    Crash,
    Cut,
    CutAtCompletion,
    CutAtWrite,
    Delay,
    Drain,
    HalfClose,
    Join,
    Later,
    Pass,
    Pause,
    Program,
    Publish,
    Replay,
    Restart,
    Settle,
    Together,
)

__all__ = ["SCENARIOS", "Scenario"]


@attrs.frozen
class Scenario:
    """A program, and what it must come to: without that it would show nothing."""

    program: Program
    shows: tuple[str, ...] = ("ack",)


_PAIR, _TWO, _THREE = (1, 1), (2,), (3,)

SCENARIOS: Mapping[str, Scenario] = {
    # ---- QoS 0
    "a_live_message_reaches_one_member_of_each_group_once": Scenario(
        Program((Publish(0), Publish(0), Again(0), Settle()), members=(2, 1)), ("ok",)
    ),
    "a_live_message_is_never_tried_again": Scenario(
        Program((Publish(0, a=("raise", "ok")), Publish(0, a=("cancel",)), Pass(3.0))), ("raise",)
    ),
    # ---- accepted and handled
    "what_is_accepted_is_handled_in_every_group": Scenario(
        Program((Together((Publish(1), Publish(2), Publish(1), Publish(2))),), members=_PAIR)
    ),
    "what_was_published_before_a_group_came_reaches_it": Scenario(
        Program((Publish(1), Publish(2), Settle(), Join("b")), members=(1, 0))
    ),
    "what_one_group_does_is_nothing_to_another": Scenario(
        Program(
            (Publish(1, a=("raise", "raise")), Publish(2, b=("reject",)), Publish(1, a=("late",))),
            members=_PAIR,
        ),
        ("ack", "nack", "dead-letter"),
    ),
    "published_again_it_is_stored_once": Scenario(
        Program((Publish(2), Settle(), Again(0), Again(0), Join("b")), members=(1, 0)),
        ("duplicate",),
    ),
    "published_by_several_at_once_it_is_stored_once": Scenario(
        Program((Together((Publish(2), Again(0), Again(0), Again(0))),)), ("duplicate",)
    ),
    "one_id_of_two_types_is_two_messages": Scenario(
        Program((Publish(2), Publish(1), Publish(2), Settle()), members=_TWO)
    ),
    # ---- failures of the handler
    "a_failed_attempt_is_followed_by_another": Scenario(
        Program(tuple(Publish(qos, a=("raise", "raise")) for qos in (1, 2))), ("nack", "ack")
    ),
    "a_handler_that_asks_for_it_is_tried_again_later": Scenario(
        Program(tuple(Publish(qos, a=("retry", "retry")) for qos in (1, 2))), ("nack", "ack")
    ),
    "what_is_put_off_too_often_becomes_a_dead_letter": Scenario(
        Program((Publish(1, a=("retry", "raise")), Publish(2, a=("retry",) * 2)), attempts=2),
        ("nack", "dead-letter"),
    ),
    "a_handler_that_hangs_is_stopped_and_tried_again": Scenario(
        Program(tuple(Publish(qos, a=("hang",)) for qos in (1, 2))), ("hang", "nack", "ack")
    ),
    "a_handler_that_cancels_itself_is_tried_again": Scenario(
        Program(tuple(Publish(qos, a=("cancel",)) for qos in (1, 2))), ("cancel", "nack", "ack")
    ),
    "the_last_failure_becomes_a_dead_letter": Scenario(
        Program(tuple(Publish(qos, a=("raise", "cancel", "raise")) for qos in (1, 2))),
        ("dead-letter",),
    ),
    "one_attempt_is_one_attempt": Scenario(
        Program((Publish(1, a=("raise",)), Publish(2, a=("cancel",))), attempts=1),
        ("dead-letter",),
    ),
    "what_is_rejected_is_not_tried_again": Scenario(
        Program((Publish(1, a=("reject",)), Publish(2, a=("reject",)), Publish(1), Pass(3.0))),
        ("reject", "dead-letter", "ack"),
    ),
    # ---- later, and once more
    "what_is_delayed_waits_for_its_time": Scenario(
        Program(
            (*(Later(qos, seconds=2.0) for qos in (1, 2)), Again(1), Publish(1), Crash(), Join()),
            members=(2, 1),
        ),
        ("Later", "duplicate", "ack"),
    ),
    "what_is_delayed_outlives_a_restart": Scenario(
        Program((Later(1, seconds=2.0), Later(2, seconds=2.0), Restart(), Again(1))),
        ("Later", "Restart", "ack"),
    ),
    "what_is_replayed_reaches_the_failing_group_alone": Scenario(
        Program(
            (
                *(Publish(qos, a=("reject", "raise", "ok")) for qos in (1, 2)),
                *(Replay(), Replay("b")),
            ),
            members=_PAIR,
        ),
        ("dead-letter", "replayed", "nack", "ack"),
    ),
    "what_fails_again_after_a_replay_is_a_dead_letter_again": Scenario(
        Program((Publish(1, a=("reject",) * 9), *((Replay(),) * 5))), ("replayed",)
    ),
    # ---- leases and members
    "a_slow_handler_keeps_its_lease": Scenario(
        Program(tuple(Publish(qos, a=("slow",)) for qos in (1, 2)), members=_TWO), ("slow", "ack")
    ),
    "a_member_that_dies_before_the_effect_is_replaced": Scenario(
        Program(tuple(Publish(qos, a=("crash",)) for qos in (1, 2)), members=_TWO),
        ("crash", "ack"),
    ),
    "a_member_that_dies_before_the_ack_is_replaced": Scenario(
        Program(tuple(Publish(qos, a=("crash-after",)) for qos in (1, 2)), members=_TWO),
        ("crash-after", "ack"),
    ),
    "a_message_that_ends_its_members_is_parked": Scenario(
        Program((Publish(1, a=("crash",) * 9), Publish(1), Publish(2)), members=(7,), attempts=1),
        ("crash", "dead-letter", "ack"),
    ),
    "what_a_dead_member_completed_stays_completed": Scenario(
        Program((Publish(2), Publish(1), Settle(), Crash(), Join(), Pass(3.0)))
    ),
    "what_nobody_has_in_hand_waits_for_a_member": Scenario(
        Program((Publish(1), Crash(), Publish(2), Publish(1), Pass(3.0), Join())), ("Crash", "ack")
    ),
    "a_member_that_comes_late_with_its_success_changes_nothing": Scenario(
        Program(tuple(Publish(qos, a=("late",)) for qos in (1, 2)), members=_THREE),
        ("late", "lost", "ack"),
    ),
    "a_member_that_comes_late_with_its_failure_changes_nothing": Scenario(
        Program(tuple(Publish(qos, a=("late-raise",)) for qos in (1, 2)), members=_THREE),
        ("late-raise", "lost", "ack"),
    ),
    "a_second_member_shares_the_work": Scenario(
        Program((Publish(1, a=("slow",)), Join(), Together((Publish(1), Publish(2), Publish(2)))))
    ),
    "a_member_that_leaves_finishes_what_it_has": Scenario(
        Program(
            (*(Publish(qos, a=("slow",)) for qos in (0, 1, 2)), Drain(), Publish(1)), members=_TWO
        ),
        ("slow", "ack"),
    ),
    "the_last_member_leaves_and_nothing_is_lost": Scenario(
        Program((Publish(1, a=("raise",)), Drain(), Publish(2), Pass(1.0), Join())), ("ack",)
    ),
    # ---- effects: written through a transaction, published, and answered
    "effects_are_there_once_whatever_ends_their_member": Scenario(
        Program(
            (Publish(2, a=("crash",)), Publish(2, a=("crash-after",)), Ask(0, ("crash-after",))),
            members=(3,),
            effects=True,
        ),
        ("crash", "crash-after", "completed", "derived"),
    ),
    "effects_of_runs_that_fail_are_not_there": Scenario(
        Program((Publish(2, a=("raise", "hang")), Publish(2, a=("raise", "reject"))), effects=True),
        ("raise", "dead-letter", "completed", "derived"),
    ),
    "effects_of_a_member_that_comes_late_are_there_once": Scenario(
        Program((Publish(2, a=("late",)), Ask(0, ("late",))), members=_THREE, effects=True),
        ("late", "completed", "derived"),
    ),
    "effects_of_a_slow_handler_are_there_once": Scenario(
        Program((Publish(2, a=("slow",)), Ask(0, ("slow",))), members=_TWO, effects=True),
        ("slow", "completed", "answered"),
    ),
    "effects_outlive_a_restart": Scenario(
        Program(
            (
                *(Ask(0), Settle()),  # a request is refused while its server is away
                *(Publish(2), Publish(2, a=("slow",)), Restart(), Again(0), Ask(0)),
            ),
            effects=True,
        ),
        ("Restart", "completed", "answered", "answered again"),
    ),
    "effects_whose_answer_was_lost_are_there_once": Scenario(
        Program((CutAtCompletion("a", "after"), Publish(2), Publish(2), Pass(1.0)), effects=True),
        ("CutAtCompletion", "completed", "derived"),
    ),
    "a_request_that_is_asked_again_gets_the_same_answer": Scenario(
        Program((Ask(0), Settle(), Ask(0), Crash(), Join(), Ask(0)), members=_TWO, effects=True),
        ("answered", "answered again", "completed"),
    ),
    # ---- the broker and the way there
    "a_restart_loses_nothing_and_forgets_no_id": Scenario(
        Program((Publish(2), Publish(1, a=("slow",)), Restart(), Again(0), Publish(1))),
        ("Restart", "ack"),
    ),
    "what_waits_outlives_a_restart": Scenario(
        Program((Publish(1), Publish(2), Restart(), Again(1), Join()), members=(0,)),
        ("Restart", "ack"),
    ),
    "a_cut_connection_comes_back": Scenario(
        Program((Publish(1, a=("slow",)), Publish(2, a=("slow",)), Cut(), Publish(2), Publish(1))),
        ("Cut", "ack"),
    ),
    "what_goes_over_a_slow_connection_arrives": Scenario(
        Program((Delay(), Delay("a"), *(Publish(qos, a=("slow",)) for qos in (1, 2)), Again(1))),
        ("Delay", "duplicate", "ack"),
    ),
    "a_half_closed_connection_comes_back": Scenario(
        Program(
            (
                *(Publish(1), Settle(), HalfClose(), Publish(2), Publish(1, a=("slow",))),
                *(HalfClose("a", "down"), Publish(2), HalfClose("a", "up"), Publish(1)),
            )
        ),
        ("HalfClose", "ack"),
    ),
    "a_broker_that_stands_still_loses_nothing": Scenario(
        Program((Publish(2), Publish(1, a=("slow",)), Pause(3.0), Publish(2), Again(0))),
        ("Pause", "ack"),
    ),
    "a_publish_that_never_arrived_is_repeated": Scenario(
        Program((CutAtWrite("publisher", 1, "before"), Publish(2), Again(0))),
        ("CutAtWrite", "ack"),
    ),
    "a_publish_whose_answer_was_lost_is_stored_once": Scenario(
        Program((CutAtWrite("publisher", 1, "after"), Publish(2), Again(0))),
        ("CutAtWrite", "ack"),
    ),
    "a_completion_that_never_arrived_is_repeated": Scenario(
        Program((CutAtCompletion("a", "before"), Publish(2), Publish(2), Pass(1.0))),
        ("CutAtCompletion", "ack"),
    ),
    "a_completion_whose_answer_was_lost_is_repeated": Scenario(
        Program((CutAtCompletion("a", "after"), Publish(2), Publish(2), Pass(1.0))),
        ("CutAtCompletion", "ack"),
    ),
}
"""By the promise it shows."""
