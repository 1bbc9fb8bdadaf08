"""A program: one frozen value that says what to do to a transport, and prints as code.

Everything in it was drawn or written beforehand; nothing depends on what a server answers. What
cannot be done where it stands (a member is to leave and there is none) does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias, get_args

import attrs

from catga.model.capability import QOS_CAPABILITY, Capability
from catga.model.qos import QualityOfService
from catga.testing.harness import Ability

__all__ = [
    "DEEDS",
    "GROUPS",
    "Again",
    "Ask",
    "Crash",
    "Cut",
    "CutAtCompletion",
    "CutAtWrite",
    "Deed",
    "Delay",
    "Drain",
    "Fault",
    "HalfClose",
    "Join",
    "Later",
    "Pass",
    "Pause",
    "Program",
    "Publish",
    "Replay",
    "Restart",
    "Settle",
    "Step",
    "Together",
    "publishes",
]

Deed: TypeAlias = Literal[
    "ok",
    "slow",
    "raise",
    "retry",
    "hang",
    "cancel",
    "reject",
    "crash",
    "crash-after",
    "late",
    "late-raise",
]
"""What a handler does in one attempt.

* `ok`: it succeeds. `slow`: too, but takes longer than the lease, which is renewed meanwhile.
* `raise`, `hang` (past the timeout), `cancel` (cancels itself): it fails and is tried again.
* `retry`: it asks to be tried again, not before the longest backoff has passed.
* `reject`: it says that this can never be handled.
* `crash`: its member vanishes before the effect; `crash-after`: between the effect and the ack.
* `late`, `late-raise`: its member stands still until the lease is over, then it succeeds or fails.
"""
DEEDS: tuple[Deed, ...] = get_args(Deed)
GROUPS = ("a", "b")


class _Shown:
    """A repr that is an expression and leaves out what has its default."""

    __slots__ = ()

    def __repr__(self) -> str:
        words = []
        for field in attrs.fields(type(self)):  # type: ignore[arg-type]  # every child is attrs
            value = getattr(self, field.name)
            if value != field.default:
                words.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(words)})"


@attrs.frozen(repr=False)
class Publish(_Shown):
    """Publish a new message; the n-th new one of a program has the id `m<n>`.

    `a` and `b` are what the handlers of the two groups do in their calls for it, in order; after
    that, and when nothing is said, they succeed.
    """

    qos: int = 1
    a: tuple[Deed, ...] = ()
    b: tuple[Deed, ...] = ()


@attrs.frozen(repr=False)
class Later(Publish):
    """Publish a new message that is not to come before its time, in seconds of the law."""

    seconds: float = 1.0


@attrs.frozen(repr=False)
class Again(_Shown):
    """Publish the (k mod n)-th of the n messages so far once more, with its id (-1: the last)."""

    k: int = 0


@attrs.frozen(repr=False)
class Together(_Shown):
    """Publish all of these at the same time."""

    steps: tuple[Publish | Again, ...]


@attrs.frozen(repr=False)
class Ask(_Shown):
    """Ask group `a` the k-th question, and wait for the answer beside the other steps; asked
    before, it is the same request. `deeds` are what the handlers do in their calls, when this is
    the first step that asks it."""

    k: int = 0
    deeds: tuple[Deed, ...] = ()


@attrs.frozen(repr=False)
class Join(_Shown):
    """One more member joins a group."""

    group: str = "a"


@attrs.frozen(repr=False)
class Drain(_Shown):
    """The oldest member of a group finishes what it has in hand and leaves."""

    group: str = "a"


@attrs.frozen(repr=False)
class Crash(_Shown):
    """The oldest member of a group vanishes, whatever it is doing."""

    group: str = "a"


@attrs.frozen(repr=False)
class Replay(_Shown):
    """Once every group is through, everything that this one has given up on is replayed."""

    group: str = "a"


@attrs.frozen(repr=False)
class Pass(_Shown):
    """Time goes by, in seconds of the law."""

    seconds: float = 1.0


@attrs.frozen(repr=False)
class Settle(_Shown):
    """Wait until every group that has a member is through with everything."""


@attrs.frozen(repr=False)
class Restart(_Shown):
    """The broker ends the hard way and comes back on its data."""


@attrs.frozen(repr=False)
class Cut(_Shown):
    """Every connection to the broker breaks."""


@attrs.frozen(repr=False)
class CutAtWrite(_Shown):
    """The connection of the publisher, or of the members of a group, breaks at its k-th write
    from now: before the broker gets it, or after, so that only the answer is lost."""

    who: str = "publisher"
    k: int = 1
    when: Literal["before", "after"] = "after"


@attrs.frozen(repr=False)
class CutAtCompletion(_Shown):
    """The connection of each member of a group breaks at the first write of the next completion
    (QoS 2) that it hands over: before the broker gets it, or after."""

    who: str = "a"
    when: Literal["before", "after"] = "after"


@attrs.frozen(repr=False)
class Delay(_Shown):
    """From now on what goes between the broker and the publisher, or the members of a group there
    are, arrives so much later, each way, in seconds of the law."""

    who: str = "publisher"
    seconds: float = 0.2


@attrs.frozen(repr=False)
class HalfClose(_Shown):
    """One direction of the connections of the publisher, or of the members of a group, ends in
    order: up to the broker, or down from it; the other stays open for who goes on with it."""

    who: str = "publisher"
    way: Literal["up", "down"] = "up"


@attrs.frozen(repr=False)
class Pause(_Shown):
    """The broker stands still for so many seconds of the law, beside the other steps."""

    seconds: float = 1.0


Fault: TypeAlias = Restart | Cut | CutAtCompletion | CutAtWrite | Delay | HalfClose | Pause
"""What befalls the broker and the ways to it."""
Step: TypeAlias = (
    Publish | Again | Together | Ask | Join | Drain | Crash | Replay | Pass | Settle | Fault
)


_TAKES: Mapping[type, Ability] = {
    Restart: Ability.RESTART,
    Pause: Ability.PAUSE,
    **dict.fromkeys((Cut, CutAtCompletion, CutAtWrite, Delay, HalfClose), Ability.CUT),
}
_NEEDS = {Later: Capability.DELAY, Replay: Capability.DEAD_LETTERS}


@attrs.frozen(repr=False)
class Program(_Shown):
    """What is set up, and what is done then."""

    steps: tuple[Step, ...]
    members: tuple[int, ...] = (1,)
    """How many members each group has at first, one number per group (of `a` and `b`)."""
    attempts: int = 3
    effects: bool = False
    """Whether handlers at QoS 2 write through their transaction (where there are any), and publish:
    at once, and with their commit."""

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups there are."""
        return GROUPS[: len(self.members)]

    @property
    def qualities(self) -> frozenset[int]:
        """The qualities of service that are published at."""
        return frozenset(publish.qos for publish in publishes(self.steps))

    @property
    def needs(self) -> frozenset[Capability | Ability]:
        """What a transport and its harness must be able to do."""
        qualities = (QOS_CAPABILITY[QualityOfService(qos)] for qos in self.qualities)
        once = {Capability.EXACTLY_ONCE} if self.asks or self.effects else set()
        more = {_NEEDS[type(step)] for step in self.steps if type(step) in _NEEDS}
        return frozenset({Capability.LIVE_GROUPS, *qualities, *once, *more, *self.faults})

    @property
    def asks(self) -> bool:
        """Whether anything is asked."""
        return any(isinstance(step, Ask) for step in self.steps)

    @property
    def faults(self) -> frozenset[Ability]:
        """What it does to the broker and to connections."""
        return frozenset(_TAKES[type(step)] for step in self.steps if type(step) in _TAKES)


def publishes(steps: tuple[Step, ...]) -> Iterator[Publish]:
    """Yield the new messages in the order of their ids."""
    for step in steps:
        if isinstance(step, Publish):
            yield step
        elif isinstance(step, Together):
            yield from publishes(step.steps)
