"""What a transport can do. What is not declared is refused, never approximated."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import attrs

from catga.errors import CapabilityError
from catga.model.qos import QualityOfService

__all__ = ["QOS_CAPABILITY", "Capabilities", "Capability"]


class Capability(StrEnum):
    """One ability of a transport, on the server it is connected to."""

    AT_MOST_ONCE = "at-most-once"
    AT_LEAST_ONCE = "at-least-once"
    EXACTLY_ONCE = "exactly-once"
    LIVE_GROUPS = "live-groups"
    """One member of each group gets a QoS 0 message."""
    COMMIT = "commit"
    """Completion record and acknowledgement are written in one step (`Subscription.commit`)."""
    ATOMIC = "atomic"
    """What a handler writes through its transaction is committed together with its completion
    record (`Commit.effects`)."""
    ATOMIC_PUBLISH = "atomic-publish"
    """What a handler publishes through its transaction leaves with that commit, to whatever type
    (`Effects.outgoing`)."""
    COMMANDS = "commands"
    """A transaction takes commands of the broker's own (`Effects.commands`)."""
    HANDLED = "handled"
    """The transport can tell when every group has finished a message (`wait_handled`)."""
    DISCOVERY = "discovery"
    """Nodes register under leases and see each other (`Transport.node_store`)."""
    PARK = "park"
    """A dead letter is stored and its original settled in one step (`Subscription.park`)."""
    DEAD_LETTERS = "dead-letters"
    """Dead letters can be read and removed (`Transport.dead_letters`)."""
    DELAY = "delay"
    """A stored message can be held back until its time (`Outgoing.not_before`)."""
    FOREVER = "deduplicate-for-ever"
    """One id is stored once for ever, not only within W (`Topology.dedupe_window` is infinite)."""
    NO_RESPONDERS = "no-responders"
    """A QoS 0 request that nobody listens for is answered at once."""


QOS_CAPABILITY: Mapping[QualityOfService, Capability] = {
    QualityOfService.AT_MOST_ONCE: Capability.AT_MOST_ONCE,
    QualityOfService.AT_LEAST_ONCE: Capability.AT_LEAST_ONCE,
    QualityOfService.EXACTLY_ONCE: Capability.EXACTLY_ONCE,
}


@attrs.frozen
class Capabilities:
    """What is there, and why the rest is not."""

    present: frozenset[Capability]
    absent: Mapping[Capability, str] = attrs.field(factory=dict)
    """The reason per missing ability, with the server option or version that would bring it."""

    def __contains__(self, capability: Capability) -> bool:
        return capability in self.present

    def require(self, capability: Capability, who_asks: str) -> None:
        """Raise `CapabilityError`, saying why and who asks for it, when it is not there."""
        if capability not in self.present:
            reason = self.absent.get(capability, "the transport does not offer it")
            raise CapabilityError(f"{who_asks} needs {capability.value}: {reason}")
