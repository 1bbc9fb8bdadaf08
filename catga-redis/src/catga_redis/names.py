"""Key names. One hash tag per namespace and type, so that one script reaches all of a type."""

from __future__ import annotations

from functools import cache

import attrs

from catga.spi import Completion, EffectKey, Kind, Source, Subject

__all__ = [
    "StreamKey",
    "claim_prefix",
    "done_key",
    "effect_key",
    "ephemeral_key",
    "groups_key",
    "index_key",
    "later_keys",
    "leases_key",
    "live_channels",
    "meta_key",
    "node_key",
    "nodes_channel",
    "nodes_key",
    "retention_key",
    "retry_key",
    "seen_prefix",
    "shard_channel",
    "source_streams",
    "stream_key",
]


def _tag(namespace: str, type_: str) -> str:
    return f"{{{namespace}:{type_}}}"


def _place(subject: Subject) -> str:
    return "log:0" if subject.kind is Kind.LOG else f"{subject.kind.value}:{subject.group}"


def stream_key(subject: Subject) -> bytes:
    """The stream of a stored subject, e.g. `{catga:OrderCreated}:log:0`."""
    return f"{_tag(subject.namespace, subject.type)}:{_place(subject)}".encode()


def seen_prefix(subject: Subject) -> bytes:
    """What precedes the message id in the dedupe key of a subject."""
    return f"{_tag(subject.namespace, subject.type)}:seen:{_place(subject)}:".encode()


def later_keys(subject: Subject) -> tuple[bytes, bytes]:
    """What waits for its time before it goes to a stream: the due times, and the bodies."""
    place = f"{_tag(subject.namespace, subject.type)}:later:{_place(subject)}"
    return place.encode(), f"{place}:bodies".encode()


def done_key(completion: Completion) -> bytes:
    """The completion record of one message in one group."""
    prefix = _done_prefix(completion.namespace, completion.type, completion.group)
    return prefix + completion.message_id.encode()


@cache
def _done_prefix(namespace: str, type_: str, group: str) -> bytes:
    return f"{_tag(namespace, type_)}:done:{group}:".encode()


def effect_key(key: EffectKey) -> bytes:
    """One key of the transactions of a group."""
    return f"{_tag(key.namespace, key.type)}:tx:{key.group}:{key.name}".encode()


def claim_prefix(subject: Subject, group: str) -> bytes:
    """What precedes the digest in the claims of a group on a QoS 0 subject."""
    tag = _tag(subject.namespace, subject.type)
    return f"{tag}:claim:{group}:{subject.kind.value}:".encode()


def meta_key(namespace: str, type_: str) -> bytes:
    """The explicit settings of a type's streams."""
    return f"{_tag(namespace, type_)}:meta".encode()


def groups_key(namespace: str, type_: str) -> bytes:
    """The set of the groups of a type: all that were declared, or that have dead letters."""
    return f"{_tag(namespace, type_)}:groups".encode()


def ephemeral_key(namespace: str, type_: str) -> bytes:
    """The groups of a type that end with their subscription, each with when it was noticed."""
    return f"{_tag(namespace, type_)}:ephemeral".encode()


def leases_key(namespace: str, type_: str) -> bytes:
    """How long each member of each group keeps what it was handed."""
    return f"{_tag(namespace, type_)}:leases".encode()


def retention_key(namespace: str, type_: str) -> bytes:
    """How long each service wants the messages of a type to stay: the longest holds."""
    return f"{_tag(namespace, type_)}:retention".encode()


def retry_key(subject: Subject, group: str) -> bytes:
    """The due times of what a group gave back of a stream."""
    return f"{_tag(subject.namespace, subject.type)}:retry:{group}:{subject.kind.value}".encode()


def index_key(namespace: str) -> bytes:
    """The set of all types of a namespace."""
    return f"{{{namespace}}}:types".encode()


def node_key(namespace: str, name: str) -> bytes:
    """One node, with an expiry."""
    return f"{{{namespace}}}:node:{name}".encode()


def nodes_key(namespace: str) -> bytes:
    """The index of all nodes of a namespace."""
    return f"{{{namespace}}}:nodes".encode()


def nodes_channel(namespace: str) -> bytes:
    """Where a node says that it came or went."""
    return f"{namespace}.nodes".encode()


@attrs.frozen(eq=False)
class StreamKey:
    """One stream that a durable subscription reads, as one group.

    Compared by identity: settling looks one up per message.
    """

    subject: Subject
    group: bytes
    key: bytes
    retry: bytes
    """The sorted set of due times of what the group gave back."""
    later: tuple[bytes, bytes]
    """What waits for its time before it goes to this stream."""
    leases: bytes
    """The leases of the members, as each has it."""


def source_streams(source: Source, group: str) -> tuple[StreamKey, ...]:
    """The streams of a durable source: `LOG`, and unless it is ephemeral `TO` and `REDO`."""
    subjects = [Subject(source.namespace, Kind.LOG, source.type)]
    if not source.ephemeral:
        subjects += [
            Subject(source.namespace, kind, source.type, group) for kind in (Kind.TO, Kind.REDO)
        ]
    return tuple(
        StreamKey(
            subject,
            group.encode(),
            stream_key(subject),
            retry_key(subject, group),
            later_keys(subject),
            leases_key(subject.namespace, subject.type),
        )
        for subject in subjects
    )


def shard_channel(subject: Subject) -> bytes:
    """The channel of a live subject on a cluster: there it has the slot of its type."""
    return f"{_tag(subject.namespace, subject.type)}:{_place(subject)}".encode()


def live_channels(source: Source, *, sharded: bool) -> dict[bytes, Subject]:
    """The Pub/Sub channels of a live source; on one server a channel is the subject's text."""
    subjects = [Subject(source.namespace, Kind.LIVE, source.type)]
    if source.group:
        subjects.append(Subject(source.namespace, Kind.LIVE_TO, source.type, source.group))
    if sharded:
        return {shard_channel(subject): subject for subject in subjects}
    return {subject.text.encode(): subject for subject in subjects}
