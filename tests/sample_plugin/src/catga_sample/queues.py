"""What is in the file, and each change of it as one function, to be run inside a transaction.

A queue belongs to one group or to one listener; its routes say which subjects go to it. A row of
`work` is what a queue still has to do: due at once (0), or when its lease or its delay ends.
"""

from __future__ import annotations

import math
from sqlite3 import Connection
from typing import TypeAlias

import attrs

from catga.spi import Completion, Done, Kind, Lost, Outgoing, Receipt, Source, Start, Subject

SCHEMA = """
CREATE TABLE IF NOT EXISTS queue
 (id INTEGER PRIMARY KEY AUTOINCREMENT, party TEXT, bus TEXT, until REAL);
CREATE TABLE IF NOT EXISTS route
 (subject TEXT, queue INTEGER REFERENCES queue ON DELETE CASCADE, PRIMARY KEY (subject, queue));
CREATE TABLE IF NOT EXISTS entry
 (sequence INTEGER PRIMARY KEY AUTOINCREMENT, subject TEXT, id TEXT, body BLOB, known_until REAL);
CREATE TABLE IF NOT EXISTS work
 (queue INTEGER REFERENCES queue ON DELETE CASCADE, sequence INTEGER REFERENCES entry ON DELETE
  CASCADE, attempt INTEGER, owner TEXT, due REAL, PRIMARY KEY (queue, sequence)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS record
 (namespace TEXT, party TEXT, type TEXT, id TEXT, until REAL,
  PRIMARY KEY (namespace, party, type, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS route_queue ON route (queue);
CREATE INDEX IF NOT EXISTS entry_id ON entry (subject, id);
CREATE INDEX IF NOT EXISTS work_entry ON work (sequence);
CREATE INDEX IF NOT EXISTS work_owner ON work (owner) WHERE owner <> '';
"""
FOREVER = math.inf
Token: TypeAlias = tuple[int, int, str, int]
"""Queue, sequence, owner and attempt of one delivery."""


def _routes(source: Source) -> list[str]:
    """Return what goes to a source: the subject of all first, then those of its group alone."""
    if source.reply:
        return [f"{source.namespace}.{Kind.REPLY.value}.{source.group}"]
    everyone, own = Kind.LIVE, [Kind.LIVE_TO]
    if source.durable:
        everyone, own = Kind.LOG, [Kind.TO, Kind.REDO]
    texts = [Subject(source.namespace, everyone, source.type).text]
    if source.group and not source.ephemeral:
        texts += [Subject(source.namespace, kind, source.type, source.group).text for kind in own]
    return texts


def find_group(db: Connection, source: Source) -> int | None:
    """Return the queue of a durable group, if there is one."""
    sql = "SELECT queue FROM route WHERE subject = ?"
    found = db.execute(sql, (_routes(source)[-1],)).fetchone()
    return None if found is None else int(found[0])


def declare_group(db: Connection, source: Source) -> int:
    """Return the queue of a durable group; a new one begins with what is stored."""
    queue = find_group(db, source)
    if queue is None:
        queue = add_queue(db, source, "", FOREVER)
        for subject in _routes(source)[source.start is Start.NEW :]:
            sql = "INSERT INTO work SELECT ?, sequence, 0, '', 0 FROM entry WHERE subject = ?"
            db.execute(sql, (queue, subject))
    return queue


def add_queue(db: Connection, source: Source, bus: str, until: float) -> int:
    """Make an empty queue, which ends then unless its bus prolongs it."""
    party = "" if source.reply or source.ephemeral else source.group
    sql = "INSERT INTO queue VALUES (NULL, ?, ?, ?)"
    queue = db.execute(sql, (party, bus, until)).lastrowid or 0
    db.executemany("INSERT INTO route VALUES (?, ?)", [(text, queue) for text in _routes(source)])
    return queue


def let_go(db: Connection, queue: int) -> None:
    """Give a listener nothing more; its queue ends soon, as nobody prolongs it any more."""
    db.execute("UPDATE queue SET bus = '' WHERE id = ?", (queue,))


def store(db: Connection, out: Outgoing, now: float, window: float) -> Receipt:
    """Store a message, once per subject and id, for every queue of its subject."""
    sql = "SELECT sequence FROM entry WHERE subject = ? AND id = ? AND known_until > ?"
    known = db.execute(sql, (out.subject.text, out.message_id, now)).fetchone()
    if known is not None:
        return Receipt(out.message_id, str(known[0]), duplicate=True)
    sequence = _insert(db, out, now + window)
    sql = "INSERT INTO work SELECT queue, ?, 0, '', 0 FROM route WHERE subject = ?"
    db.execute(sql, (sequence, out.subject.text))
    return Receipt(out.message_id, str(sequence))


def _insert(db: Connection, out: Outgoing, known_until: float) -> int | None:
    values = (out.subject.text, out.message_id, out.body, known_until)
    return db.execute("INSERT INTO entry VALUES (NULL, ?, ?, ?, ?)", values).lastrowid


def hand_over(db: Connection, out: Outgoing, now: float, room: int) -> tuple[int, int]:
    """Give a QoS 0 message to each listener and one of each group: how many took, missed it."""
    reply, text = out.subject.kind is Kind.REPLY, out.subject.text
    text = text.rpartition(".")[0] if reply else text  # all tokens of a bus go to one queue
    sql = (  # of one group the last row counts: whoever has the least before it
        "SELECT id, party, (SELECT count(*) FROM work WHERE work.queue = id) AS waiting"
        " FROM queue JOIN route ON queue = id WHERE subject = ? AND bus <> '' AND until > ?"
        " ORDER BY waiting DESC, random()"
    )
    chosen = {party or queue: (queue, n) for queue, party, n in db.execute(sql, (text, now))}
    taking = [queue for queue, waiting in chosen.values() if waiting < room]
    if taking:
        sequence = _insert(db, out, 0.0)
        values = [(queue, sequence) for queue in taking]
        db.executemany("INSERT INTO work VALUES (?, ?, 0, '', 0)", values)
    return len(taking), len(chosen) - len(taking)


def is_due(db: Connection, queue: int, now: float) -> bool | None:
    """Say whether there is something to take; None when the queue itself is gone."""
    sql = "SELECT EXISTS (SELECT 1 FROM work WHERE queue = id AND due <= ?) FROM queue WHERE id = ?"
    found = db.execute(sql, (now, queue)).fetchone()
    return None if found is None else bool(found[0])


def take(
    db: Connection, queue: int, owner: str, source: Source, limit: int, now: float
) -> list[tuple[int, int, str, bytes]]:
    """Lend what is due, oldest first: sequence, attempt, subject and body of each."""
    sql = "SELECT count(*) FROM work WHERE owner <> '' AND owner = ? AND due > ?"
    ((held,),) = db.execute(sql, (owner, now))
    room = max(0, min(limit, source.window - held))
    sql = (
        "UPDATE work SET attempt = attempt + 1, owner = ?, due = ? WHERE queue = ? AND sequence IN"
        " (SELECT sequence FROM work WHERE queue = ? AND due <= ? ORDER BY sequence LIMIT ?)"
        " RETURNING sequence, attempt,"
        " (SELECT subject FROM entry WHERE entry.sequence = work.sequence),"
        " (SELECT body FROM entry WHERE entry.sequence = work.sequence)"
    )
    taken = sorted(db.execute(sql, (owner, now + source.lease, queue, queue, now, room)))
    if not source.durable:  # at most once: forgotten before it is handled
        sql = "DELETE FROM work WHERE queue = ? AND sequence = ?"
        db.executemany(sql, [(queue, sequence) for sequence, *_ in taken])
    return taken


def settle(
    db: Connection, token: Token, now: float, due: float | None = None, owner: str = ""
) -> Done | Lost:
    """Finish a delivery, or make it due at another time, if it is still its owner's."""
    held = " WHERE queue = ? AND sequence = ? AND owner = ? AND attempt = ? AND due > ?"
    if due is None:
        changed = db.execute("DELETE FROM work" + held, (*token, now))
    else:
        sql = "UPDATE work SET due = ?, owner = ?" + held
        changed = db.execute(sql, (due, owner, *token, now))
    return Done() if changed.rowcount else Lost()


def complete(db: Connection, token: Token, key: Completion, now: float, ttl: float) -> Done | Lost:
    """Record and acknowledge. What is recorded already is done, whoever holds it by now."""
    result = settle(db, token, now)
    if isinstance(result, Done):
        record(db, key, now + ttl)
    elif is_recorded(db, key, now):
        db.execute("DELETE FROM work WHERE queue = ? AND sequence = ?", token[:2])
        return Done()
    return result


def record(db: Connection, key: Completion, until: float) -> Done:
    """Note that this group completed this message."""
    values = (*attrs.astuple(key), until)
    db.execute("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?)", values)
    return Done()


def is_recorded(db: Connection, key: Completion, now: float) -> bool:
    """Say whether that was noted, within D."""
    sql = "SELECT 1 FROM record WHERE (namespace, party, type, id) = (?, ?, ?, ?) AND until > ?"
    return db.execute(sql, (*attrs.astuple(key), now)).fetchone() is not None


def keep_house(db: Connection, bus: str, until: float, now: float) -> None:
    """Prolong what a bus listens with; forget the dead, and what is settled and older than W."""
    db.execute("UPDATE queue SET until = ? WHERE bus = ?", (until, bus))
    db.execute("DELETE FROM queue WHERE until < ?", (now,))
    db.execute("DELETE FROM record WHERE until < ?", (now,))
    sql = (
        "DELETE FROM entry WHERE known_until <= ?"
        " AND NOT EXISTS (SELECT 1 FROM work WHERE work.sequence = entry.sequence)"
        " AND (known_until = 0 OR subject IN"
        " (SELECT subject FROM route JOIN queue ON id = queue WHERE until = ?))"
    )
    db.execute(sql, (now, FOREVER))
