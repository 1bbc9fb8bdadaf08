"""What a mutant is: one part of Catga that is wrong in one way, and the law that has to notice."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Any
from unittest.mock import patch

import attrs

__all__ = ["MUTANTS", "Base", "Mutant", "mutant"]


class Base(StrEnum):
    """What is mutated. The engine is shown wrong over the transport in memory."""

    ENGINE = "engine"
    MEMORY = "memory"
    NODES = "nodes"
    """Discovery, over the transport in memory: no program sees it."""
    LETTERS = "letters"
    """Dead letters and their replay: as before."""
    STRANDING = "stranding"
    """The engine and the transport in memory: what strands, drops, or tries for ever. There are
    many, so each is tried on the laws that are named for them, and on no random programs."""
    NATS = "nats"
    REDIS = "redis"

    @property
    def broker(self) -> bool:
        """Whether it takes a real server."""
        return self in {Base.NATS, Base.REDIS}

    @property
    def narrow(self) -> bool:
        """Whether only what is named is tried, with a sample beside it."""
        return self.broker or self is Base.STRANDING


@attrs.frozen
class Mutant:
    """One function (or script) of the real parts, replaced for the time of a run."""

    name: str
    wrong: str
    """What it does, in words."""
    base: Base
    law: str
    """The law, or the scenario, that has to kill it."""
    owner: Any
    attribute: str
    make: Callable[[Any], Any]
    """Returns the wrong part, given the right one."""

    def applied(self) -> AbstractContextManager[Any]:
        """Be wrong inside the `with`."""
        right = getattr(self.owner, self.attribute)
        return patch.object(self.owner, self.attribute, self.make(right))


MUTANTS: list[Mutant] = []
"""All of them, in the order of their declaration; filled by importing their modules."""


def mutant(
    base: Base, owner: Any, attribute: str, *, law: str
) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """Declare a mutant: the decorated function is given the right part and returns the wrong one.

    Its name is the mutant's, its docstring says what is wrong.
    """

    def decorate(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
        name = make.__name__.replace("_", " ")
        wrong = " ".join((make.__doc__ or "").split())
        MUTANTS.append(Mutant(name, wrong, base, law, owner, attribute, make))
        return make

    return decorate
