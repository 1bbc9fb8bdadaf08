"""The commands that a handler may let a commit run: those that cannot fail on the way.

A script is not rolled back. So only commands are taken whose every way to fail is known: their
words are looked at here, and what stands under their keys by the script, before it writes anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs
from redis.crc import key_slot

from catga.errors import ConfigurationError

__all__ = ["EXACT", "Plan", "Planned", "own_key"]

EXACT = 2**53 - 1
"""Counters are taken up to here: a script computes in doubles."""
_LONGEST = 10 * 365 * 86_400
"""Seconds that a key may still live."""
_MOST_WORDS = 500


@attrs.frozen
class Planned:
    """One command, and what has to be true of its key."""

    words: tuple[bytes, ...]
    kind: str
    """What may stand under the key; empty: anything."""
    amount: int = 0
    """By so much a counter changes at the most."""
    field: bytes = b""
    """Of a hash, when it is one of its fields that is counted."""

    @property
    def counts(self) -> bool:
        """Whether what stands there has to be an integer."""
        return self.words[0] in _COUNTING

    @property
    def touches(self) -> list[tuple[bytes, bytes]]:
        """Which values it writes, of those that a counter must not find changed."""
        key, rest = self.words[1], self.words[2:]
        if self.kind == "hash" and self.words[0] != b"HDEL":
            return [(key, field) for field in rest[::2]]
        return [(key, b"")] if self.kind == "string" else []


def own_key(namespace: str, type_: str, name: str) -> str:
    """Return the key of a handler for `name`, in the slot of everything of this type."""
    return f"{name}:{{{namespace}:{type_}}}"


class Plan:
    """The commands of one commit for a message of one type."""

    def __init__(self, namespace: str, type_: str) -> None:
        self._namespace = namespace
        self._type = type_
        self._kinds: dict[bytes, str] = {}
        self._counted: dict[tuple[bytes, bytes], bool] = {}
        self.commands: list[Planned] = []

    def add(self, words: Sequence[bytes]) -> None:
        """Take one more command.

        Raises `ConfigurationError` for one that is not taken, that has not the words it needs,
        whose key is not the handler's to write, or that does not go with those before it.
        """
        if len(words) < 2 or len(words) > _MOST_WORDS:
            raise ConfigurationError(
                f"a command has a name, a key, and at most {_MOST_WORDS} words"
            )
        name = words[0].upper()
        rule = _RULES.get(name)
        if rule is None:
            known = ", ".join(sorted(each.decode() for each in _RULES))
            raise ConfigurationError(
                f"{name.decode(errors='replace')[:40]!r} cannot be part of a commit, where nothing "
                f"is rolled back; these can: {known}"
            )
        _check_key(self._namespace, self._type, words[1])
        planned = rule(name, words[1], *words[2:])
        self._check_company(planned)
        self.commands.append(planned)

    def _check_company(self, planned: Planned) -> None:
        """A value is of one kind, and it is either set or counted."""
        key = planned.words[1]
        shown = key.decode(errors="backslashreplace")[:80]
        kind = self._kinds.setdefault(key, planned.kind) if planned.kind else planned.kind
        if kind != planned.kind:
            raise ConfigurationError(f"{shown!r} is to be a {kind} and a {planned.kind}")
        for place in planned.touches:
            if self._counted.setdefault(place, planned.counts) is not planned.counts:
                raise ConfigurationError(f"{shown!r} is set and counted in one commit: do either")


def _check_key(namespace: str, type_: str, key: bytes) -> None:
    tag = f"{{{namespace}:{type_}}}".encode()
    shown = key.decode(errors="backslashreplace")[:80]
    if key_slot(key) != key_slot(tag):
        raise ConfigurationError(
            f"the key {shown!r} is in another slot than the messages of {type_}: a commit reaches "
            f"one; put {tag.decode()} into it, as context.transaction.key(name) does"
        )
    if key.startswith(tag):
        raise ConfigurationError(f"the key {shown!r} is Catga's own: put {tag.decode()} elsewhere")


_Rule = Callable[..., Planned]


def _taking(kind: str, least: int, most: int = _MOST_WORDS, step: int = 1) -> _Rule:
    """Take so many words behind the key, in steps."""

    def rule(name: bytes, key: bytes, *rest: bytes) -> Planned:
        if not least <= len(rest) <= most or len(rest) % step:
            raise ConfigurationError(f"{name.decode()} has the wrong number of words")
        return Planned((name, key, *rest), kind)

    return rule


def _counting(kind: str, number: bool) -> _Rule:
    def rule(name: bytes, key: bytes, *rest: bytes) -> Planned:
        fields = 1 if kind == "hash" else 0
        if len(rest) != fields + number:
            raise ConfigurationError(f"{name.decode()} has the wrong number of words")
        amount = _integer(name, rest[-1], EXACT) if number else 1
        return Planned((name, key, *rest), kind, abs(amount), rest[0] if fields else b"")

    return rule


def _scoring(name: bytes, key: bytes, *rest: bytes) -> Planned:
    if len(rest) < 2 or len(rest) % 2 or (name == b"ZINCRBY" and len(rest) != 2):
        raise ConfigurationError(f"{name.decode()} has the wrong number of words")
    for score in rest[::2]:
        try:
            finite = math.isfinite(float(score)) and b"_" not in score and score == score.strip()
        except ValueError:
            finite = False
        if not finite:
            raise ConfigurationError(f"{name.decode()}: {score[:40]!r} is not a finite score")
    return Planned((name, key, *rest), "zset")


def _expiring(name: bytes, key: bytes, *rest: bytes) -> Planned:
    if len(rest) != 1:
        raise ConfigurationError(f"{name.decode()} has the wrong number of words")
    if _integer(name, rest[0], _LONGEST) < 1:
        raise ConfigurationError(f"{name.decode()}: a key lives for 1 to {_LONGEST} seconds")
    return Planned((name, key, *rest), "")


def _integer(name: bytes, word: bytes, limit: int) -> int:
    digits = word.removeprefix(b"-")
    plain = digits.isdigit() and len(digits) <= 16 and (word == b"0" or digits[:1] != b"0")
    if not plain or abs(int(word)) > limit:
        raise ConfigurationError(f"{name.decode()}: {word[:40]!r} is not an integer to {limit}")
    return int(word)


_RULES: dict[bytes, _Rule] = {
    b"DECR": _counting("string", number=False),
    b"DECRBY": _counting("string", number=True),
    b"DEL": _taking("", 0, 0),
    b"EXPIRE": _expiring,
    b"HDEL": _taking("hash", 1),
    b"HINCRBY": _counting("hash", number=True),
    b"HSET": _taking("hash", 2, step=2),
    b"INCR": _counting("string", number=False),
    b"INCRBY": _counting("string", number=True),
    b"LPUSH": _taking("list", 1),
    b"PERSIST": _taking("", 0, 0),
    b"RPUSH": _taking("list", 1),
    b"SADD": _taking("set", 1),
    b"SET": _taking("string", 1, 1),
    b"SREM": _taking("set", 1),
    b"ZADD": _scoring,
    b"ZINCRBY": _scoring,
    b"ZREM": _taking("zset", 1),
}
_COUNTING = frozenset({b"DECR", b"DECRBY", b"HINCRBY", b"INCR", b"INCRBY"})
