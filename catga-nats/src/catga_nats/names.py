"""Names of streams, consumers and subjects."""

from __future__ import annotations

from catga.spi import Kind, Source, Subject

__all__ = [
    "bucket",
    "consumer",
    "dead_stream",
    "inbox_stream",
    "log_stream",
    "nodes_bucket",
    "nodes_hint",
    "nodes_stream",
    "once_subject",
    "out_consumer",
    "out_subject",
    "scheduled_subject",
    "stored_subjects",
    "tx_stream",
    "waiting_consumer",
    "waiting_subject",
]


def log_stream(namespace: str) -> str:
    """The stream of everything that is to be handled."""
    return f"{namespace}-log"


def dead_stream(namespace: str) -> str:
    """The stream of dead letters."""
    return f"{namespace}-dead"


def bucket(namespace: str) -> str:
    """The KV bucket of completion records."""
    return f"{namespace}-inbox"


def inbox_stream(namespace: str) -> str:
    """The stream under that bucket."""
    return f"KV_{bucket(namespace)}"


def tx_stream(namespace: str) -> str:
    """The stream of what transactions write, with their records."""
    return f"{namespace}-tx"


def out_subject(namespace: str, token: str) -> str:
    """Where a message lies that a transaction has published and nobody has carried on yet."""
    return f"{namespace}.tx.out.{token}"


def out_consumer() -> str:
    """The durable that carries those on."""
    return "out"


def nodes_bucket(namespace: str) -> str:
    """The KV bucket of nodes."""
    return f"{namespace}-nodes"


def nodes_stream(namespace: str) -> str:
    """The stream under that bucket."""
    return f"KV_{nodes_bucket(namespace)}"


def nodes_hint(namespace: str) -> str:
    """The core subject on which a node says that it came or went."""
    return f"{namespace}.nodes"


def consumer(source: Source) -> str:
    """The durable of one group and type; `=` stands in no token."""
    return f"{source.group}={source.type}"


def stored_subjects(source: Source) -> list[str]:
    """What a durable subscription takes in: also what has a subject for each id."""
    partitions = f"{source.namespace}.log.{source.type}.>"
    if source.ephemeral:
        return [partitions]
    to = Subject(source.namespace, Kind.TO, source.type, source.group)
    return [
        partitions,
        to.text,
        f"{once_subject(to)}.*",
        Subject(source.namespace, Kind.REDO, source.type, source.group).text,
    ]


def once_subject(subject: Subject) -> str:
    """What stands before the id where each id of a subject has a subject of its own.

    For one group it is not the subject itself: a consumer of both `a.b` and `a.b.>` does not get
    all messages of `a.b` (nats-server 2.10.26).
    """
    if subject.kind is Kind.LOG:
        return subject.text
    return f"{subject.namespace}.once.{subject.type}.{subject.group}"


def scheduled_subject(namespace: str, token: str) -> str:
    """Where a message lies that the server itself will carry to its target."""
    return f"{namespace}.later.at.{token}"


def waiting_subject(namespace: str, token: str) -> str:
    """Where a message lies that one of us will carry to its target."""
    return f"{namespace}.later.wait.{token}"


def waiting_consumer() -> str:
    """The durable that holds those back; no group's has such a name."""
    return "later"
