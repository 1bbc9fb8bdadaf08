"""Each change of the file as one function, run in a transaction; schema.sql says what is there."""

from __future__ import annotations

import math
from importlib.resources import files
from sqlite3 import Connection as Db
from sqlite3 import DatabaseError
from typing import Any, TypeAlias

from catga import spi
from catga.spi import Completion, Done, Kind, Lost, Outgoing, Receipt, Source, Start, Subject

FOREVER = math.inf
_FORGET = (
    "DELETE FROM entry WHERE known_until <= ?"
    " AND NOT EXISTS (SELECT 1 FROM work WHERE work.sequence = entry.sequence)"
)
Token: TypeAlias = tuple[int, int, str, int]
"""Queue, sequence, owner and attempt: what a delivery is known by here."""


def make(db: Db) -> None:
    """Make the tables. Raises `DatabaseError` when somebody else's are there."""
    ((tables,),) = db.execute("SELECT count(*) FROM sqlite_master")
    if tables and db.execute("PRAGMA application_id").fetchone() != (int.from_bytes(b"CATG"),):
        raise DatabaseError("it belongs to another program")
    schema = files("catga_sample").joinpath("schema.sql").read_text(encoding="utf-8")
    for statement in () if tables else schema.split(";"):
        db.execute(statement)


def _routes(source: Source) -> list[str]:
    """Return what goes to a source: the subject of all first, then those of its group alone."""
    if source.reply:
        return [f"{source.namespace}.{Kind.REPLY.value}.{source.group}"]
    kinds = (Kind.LOG, Kind.TO, Kind.REDO) if source.durable else (Kind.LIVE, Kind.LIVE_TO)
    own = kinds[1:] if source.group and not source.ephemeral else ()
    subjects = [Subject(source.namespace, kind, source.type, source.group) for kind in own]
    return [Subject(source.namespace, kinds[0], source.type).text, *(one.text for one in subjects)]


def find_group(db: Db, source: Source) -> int | None:
    """Return the queue of a durable group, if there is one."""
    sql = "SELECT queue FROM route WHERE subject = ?"
    found = db.execute(sql, (_routes(source)[-1],)).fetchone()
    return int(found[0]) if found else None


def declare_group(db: Db, source: Source) -> int:
    """Return the queue of a durable group; a new one begins with what is stored."""
    queue = find_group(db, source)
    if queue is None:
        queue = add_queue(db, source, "", FOREVER)
        sql = "INSERT INTO work SELECT ?, sequence, attempts, '', 0 FROM entry WHERE subject = ?"
        stored = _routes(source)[source.start is Start.NEW :]
        db.executemany(sql, [(queue, subject) for subject in stored])
    return queue


def add_queue(db: Db, source: Source, bus: str, until: float) -> int:
    """Make an empty queue, which ends then unless its bus prolongs it."""
    values = ("" if source.reply or source.ephemeral else source.group, bus, until)
    queue = db.execute("INSERT INTO queue VALUES (NULL, ?, ?, ?)", values).lastrowid or 0
    db.executemany("INSERT INTO route VALUES (?, ?)", [(text, queue) for text in _routes(source)])
    return queue


def let_go(db: Db, queue: int) -> None:
    """Give a listener nothing more; its queue ends soon, as nobody prolongs it any more."""
    db.execute("UPDATE queue SET bus = '' WHERE id = ?", (queue,))


def store(db: Db, out: Outgoing, now: float, window: float) -> Receipt:
    """Store a message, once per subject and id, for every queue of its subject."""
    sql = "SELECT sequence FROM entry WHERE subject = ? AND id = ? AND known_until > ?"
    known = db.execute(sql, (out.subject.text, out.message_id, now)).fetchone()
    if known is not None:
        return Receipt(out.message_id, str(known[0]), duplicate=True)
    sequence = _insert(db, out, now + window)
    sql = "INSERT INTO work SELECT queue, ?, ?, '', 0 FROM route WHERE subject = ?"
    db.execute(sql, (sequence, out.attempts, out.subject.text))
    return Receipt(out.message_id, str(sequence))


def _insert(db: Db, out: Outgoing, known_until: float) -> int | None:
    values = (out.subject.text, out.message_id, out.body, known_until, out.attempts, out.replays)
    return db.execute("INSERT INTO entry VALUES (NULL, ?, ?, ?, ?, ?, ?)", values).lastrowid


def hand_over(db: Db, out: Outgoing, now: float, room: int) -> tuple[int, int]:
    """Give a QoS 0 message to each listener and one of each group: how many took, missed it."""
    text = out.subject.text
    if out.subject.kind is Kind.REPLY:
        text = text.rpartition(".")[0]  # the responses to all requests of a bus go to one queue
    sql = (  # of one group the last row counts: whoever has the least before it
        "SELECT id, party, (SELECT count(*) FROM work WHERE work.queue = id) AS waiting"
        " FROM queue JOIN route ON queue = id WHERE subject = ? AND bus <> '' AND until > ?"
        " ORDER BY waiting DESC, random()"
    )
    chosen = {party or queue: (queue, n) for queue, party, n in db.execute(sql, (text, now))}
    taking = [queue for queue, waiting in chosen.values() if waiting < room]
    if taking:
        sequence, sql = _insert(db, out, 0.0), "INSERT INTO work VALUES (?, ?, 0, '', 0)"
        db.executemany(sql, [(queue, sequence) for queue in taking])
    return len(taking), len(chosen) - len(taking)


def is_due(db: Db, queue: int, now: float) -> bool | None:
    """Say whether there is something to take; None when the queue itself is gone."""
    sql = "SELECT EXISTS (SELECT 1 FROM work WHERE queue = id AND due <= ?) FROM queue WHERE id = ?"
    found = db.execute(sql, (now, queue)).fetchone()
    return None if found is None else bool(found[0])


def take(db: Db, queue: int, owner: str, source: Source, limit: int, now: float) -> list[Any]:
    """Lend what is due, oldest first: sequence, attempt and what is stored of each."""
    sql = "SELECT count(*) FROM work WHERE owner <> '' AND owner = ? AND due > ?"
    ((held,),) = db.execute(sql, (owner, now))
    room = max(0, min(limit, source.window - held))
    sql = (
        "UPDATE work SET attempt = attempt + 1, owner = ?, due = ? WHERE queue = ? AND sequence IN"
        " (SELECT sequence FROM work WHERE queue = ? AND due <= ? ORDER BY sequence LIMIT ?)"
        " RETURNING sequence, attempt,"
        " (SELECT subject FROM entry WHERE entry.sequence = work.sequence),"
        " (SELECT body FROM entry WHERE entry.sequence = work.sequence),"
        " (SELECT replays FROM entry WHERE entry.sequence = work.sequence)"
    )
    taken = sorted(db.execute(sql, (owner, now + source.lease, queue, queue, now, room)))
    if not source.durable:  # at most once: forgotten before it is handled
        sql = "DELETE FROM work WHERE queue = ? AND sequence = ?"
        db.executemany(sql, [(queue, sequence) for sequence, *_ in taken])
        db.executemany(_FORGET + " AND sequence = ?", [(0, sequence) for sequence, *_ in taken])
    return taken


def settle(
    db: Db, token: Token, now: float, due: float | None = None, owner: str = ""
) -> Done | Lost:
    """Finish a delivery, or make it due at another time, if it is still its owner's."""
    held = " WHERE queue = ? AND sequence = ? AND owner = ? AND attempt = ? AND due > ?"
    if due is None:
        changed = db.execute("DELETE FROM work" + held, (*token, now))
    else:
        changed = db.execute("UPDATE work SET due = ?, owner = ?" + held, (due, owner, *token, now))
    return Done() if changed.rowcount else Lost()


def complete(db: Db, what: spi.Commit, now: float, ttl: float) -> Done | Lost:
    """Record and acknowledge. What is recorded already is done, whoever holds it by now."""
    token = what.delivery.token
    if isinstance(settle(db, token, now), Done):
        return record(db, what.record, now, ttl)
    if find(db, what.record.key, now) is None:
        return Lost()
    db.execute("DELETE FROM work WHERE queue = ? AND sequence = ?", token[:2])
    return Done()


def record(db: Db, what: spi.Record, now: float, ttl: float) -> Done:
    """Note that this group completed this message, unless that is noted already."""
    if find(db, what.key, now) is None:
        values = (*what.key.words, now + ttl, what.response)
        db.execute("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?, ?)", values)
    return Done()


def find(db: Db, key: Completion, now: float) -> Any:
    """Return the row of what was noted within D, if it was: with the response."""
    sql = "SELECT response FROM record WHERE (namespace, party, type, id) = (?, ?, ?, ?)"
    return db.execute(f"{sql} AND until > ?", (*key.words, now)).fetchone()


def keep_house(db: Db, bus: str, until: float, now: float) -> None:
    """Prolong what a bus listens with; forget the dead, and what is settled and older than W."""
    db.execute("UPDATE queue SET until = ? WHERE bus = ?", (until, bus))
    db.execute("DELETE FROM queue WHERE until < ?", (now,))
    db.execute("DELETE FROM record WHERE until < ?", (now,))
    groups = " SELECT subject FROM route JOIN queue ON id = queue WHERE until = ?"
    db.execute(f"{_FORGET} AND (known_until = 0 OR subject IN ({groups}))", (now, FOREVER))


def remove(db: Db, namespace: str) -> None:
    """Delete the groups, messages and records of a namespace."""
    mine = "SELECT queue FROM route WHERE subject GLOB ?"
    db.execute(f"DELETE FROM queue WHERE until = ? AND id IN ({mine})", (FOREVER, namespace + ".*"))
    db.execute("DELETE FROM entry WHERE subject GLOB ?", (namespace + ".*",))
    db.execute("DELETE FROM record WHERE namespace = ?", (namespace,))
