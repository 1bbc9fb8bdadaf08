"""The harness: how the contract reaches one transport. An author fills in one of these."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any

import attrs

from catga.ground.clock import Clock, ManualClock, SystemClock
from catga.model.capability import QOS_CAPABILITY, Capability
from catga.model.qos import QualityOfService
from catga.plugins import Catalog, installed_catalog
from catga.settings import parse_url, resolve_settings
from catga.spi import Transport, TransportDescriptor
from catga.testing.stage import Stage

__all__ = ["Ability", "Harness", "Law", "law"]

_LAW_SECONDS = 60.0


class Ability(StrEnum):
    """What a harness can do to its broker, beyond talking to it."""

    RESTART = "restart the broker on its data"
    CUT = "cut connections"


@attrs.define(kw_only=True)
class Harness:
    """One transport under the contract. Only `url` is needed.

    * `url` names a broker that may be used freely: each law has a namespace of its own and
      removes it.
    * `time_scale` is how many real seconds a second of the laws takes: small is fast, but must
      leave the broker time to answer. With `manual_clock` time costs nothing.
    * `restart` ends the broker the hard way and starts it again on its data.
    * `proxied` returns the URL of the same broker through a proxy, and a function that cuts every
      connection through it.
    * `catalog` replaces the installed plugins (a plugin that is not installed, or a wrong one).
    """

    url: str
    time_scale: float = 1.0
    manual_clock: bool = False
    settings: Mapping[str, object] = attrs.field(factory=dict)
    catalog: Catalog | None = None
    restart: Callable[[], Awaitable[None]] | None = None
    proxied: tuple[str, Callable[[], None]] | None = None
    not_shown: dict[str, str] = attrs.field(factory=dict, init=False)
    """Laws that could not be shown here, with what was missing. Never skipped in silence."""

    @property
    def abilities(self) -> frozenset[Ability]:
        """What this harness can do."""
        there = {Ability.RESTART: self.restart, Ability.CUT: self.proxied}
        return frozenset(ability for ability, means in there.items() if means is not None)

    @property
    def declared(self) -> frozenset[Capability]:
        """What the transport's descriptor says it can do at best."""
        return self._descriptor().capabilities

    def _descriptor(self) -> TransportDescriptor:
        catalog = self.catalog or installed_catalog()
        return catalog.transport_for(parse_url(self.url)[0].scheme)

    def make(self, url: str | None = None, **settings: object) -> Transport:
        """Return a transport that is not open yet."""
        address, query = parse_url(url or self.url)
        descriptor = self._descriptor()
        given = {**self.settings, **settings}
        resolved = resolve_settings(descriptor, query, os.environ, given)
        return descriptor.factory(address, resolved.transport, resolved.explicit)

    def clock(self) -> Clock:
        """Return a clock for one law."""
        return ManualClock() if self.manual_clock else SystemClock()

    def run(self, law: Callable[[Stage], Awaitable[None]]) -> None:
        """Run one law on an event loop of its own; whatever it made is removed.

        Raises what the law raises, and `TimeoutError` when it hangs.
        """

        async def bounded() -> None:
            stage = Stage(self)
            async with asyncio.timeout(_LAW_SECONDS):
                try:
                    await law(stage)
                finally:
                    await stage.close()

        with asyncio.Runner() as runner:
            runner.run(bounded())


@attrs.frozen
class Law:
    """What is known of a law without running it."""

    name: str
    qos: QualityOfService | None
    needs: frozenset[Capability | Ability]


def law(
    qos: int | None = None, needs: Iterable[Capability | Ability] = ()
) -> Callable[[Callable[[Any, Stage], Awaitable[None]]], Callable[[Any, Harness], None]]:
    """Make a test method of a law: `async def test_…(self, stage)` becomes `(self, harness)`.

    `qos` is the quality it belongs to, `needs` what it takes: a law whose capability is not
    declared, or whose ability the harness lacks, is listed in `Harness.not_shown`.
    """
    quality = None if qos is None else QualityOfService(qos)
    wanted = frozenset(needs) | (frozenset() if quality is None else {QOS_CAPABILITY[quality]})

    def decorate(
        function: Callable[[Any, Stage], Awaitable[None]],
    ) -> Callable[[Any, Harness], None]:
        @functools.wraps(function)
        def test(self: Any, harness: Harness) -> None:
            missing = wanted - harness.declared - harness.abilities
            if missing:
                words = ", ".join(sorted(each.value for each in missing))
                harness.not_shown[function.__name__] = words
                return
            harness.run(functools.partial(function, self))

        del test.__wrapped__  # or pytest would look for `stage`
        test.law = Law(function.__name__, quality, wanted)  # type: ignore[attr-defined]
        return test

    return decorate
