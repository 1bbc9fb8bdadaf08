"""Floor 2: what a plugin implements and what it hands over. Contracts only, no logic.

`SPI_VERSION` is the version of these interfaces; a plugin states the one it was written for.
"""

from catga.ground.clock import Clock, Timer
from catga.ground.mailbox import Mailbox
from catga.ground.tasks import end_all
from catga.model.capability import Capabilities, Capability
from catga.model.node import ChangeKind, Node, NodeChange, NodeRecord
from catga.model.outcome import (
    Ack,
    Conflict,
    Done,
    Lost,
    Nack,
    PublishResult,
    Receipt,
    Refused,
    Reject,
    Rejected,
    Settlement,
    SettleResult,
    Unknown,
)
from catga.model.qos import QualityOfService
from catga.model.subject import Kind, Subject, check_token, parse_subject
from catga.spi.address import Address, Secret
from catga.spi.codec import Codec
from catga.spi.deadletters import DeadLetterStore, StoredLetter
from catga.spi.delivery import Delivery, Outgoing, Settle
from catga.spi.descriptors import SPI_VERSION, CommandDescriptor, TransportDescriptor
from catga.spi.discovery import NodeStore, Sighting, Snapshot
from catga.spi.effects import Command, EffectKey, Effects, EffectStore, Found
from catga.spi.inbox import Commit, Completion, InboxStore, Record
from catga.spi.middleware import Instrument, Middleware
from catga.spi.transport import (
    LEASE_MARGIN,
    EventKind,
    Health,
    Mode,
    Records,
    Runtime,
    Source,
    Start,
    Subscription,
    Topology,
    Transport,
    TransportEvent,
)

__all__ = [
    "LEASE_MARGIN",
    "SPI_VERSION",
    "Ack",
    "Address",
    "Capabilities",
    "Capability",
    "ChangeKind",
    "Clock",
    "Codec",
    "Command",
    "CommandDescriptor",
    "Commit",
    "Completion",
    "Conflict",
    "DeadLetterStore",
    "Delivery",
    "Done",
    "EffectKey",
    "EffectStore",
    "Effects",
    "EventKind",
    "Found",
    "Health",
    "InboxStore",
    "Instrument",
    "Kind",
    "Lost",
    "Mailbox",
    "Middleware",
    "Mode",
    "Nack",
    "Node",
    "NodeChange",
    "NodeRecord",
    "NodeStore",
    "Outgoing",
    "PublishResult",
    "QualityOfService",
    "Receipt",
    "Record",
    "Records",
    "Refused",
    "Reject",
    "Rejected",
    "Runtime",
    "Secret",
    "Settle",
    "SettleResult",
    "Settlement",
    "Sighting",
    "Snapshot",
    "Source",
    "Start",
    "StoredLetter",
    "Subject",
    "Subscription",
    "Timer",
    "Topology",
    "Transport",
    "TransportDescriptor",
    "TransportEvent",
    "Unknown",
    "check_token",
    "end_all",
    "parse_subject",
]
