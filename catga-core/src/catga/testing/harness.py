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
from catga.ground.tasks import finish
from catga.model.capability import QOS_CAPABILITY, Capability
from catga.model.qos import QualityOfService
from catga.plugins import Catalog, installed_catalog
from catga.records import with_records_at
from catga.settings import parse_url, resolve_settings
from catga.spi import Transport, TransportDescriptor
from catga.testing.stage import NotShown, Stage

__all__ = ["Ability", "Harness", "Law", "law"]

_LAW_SECONDS = 60.0
"""Real seconds after which a law hangs, where its own seconds take no longer than real ones."""
_LOOPBACK = frozenset({"127.0.0.1", "localhost"})


class Ability(StrEnum):
    """What a harness can do to its broker, beyond talking to it."""

    RESTART = "restart the broker on its data"
    CUT = "cut connections: a broker on one port of loopback"
    FILL = "fill the broker up"
    PAUSE = "stop the broker in mid-work and let it go on"


@attrs.define(kw_only=True)
class Harness:
    """One transport under the contract. Only `url` is needed.

    * `url` names a broker that may be used freely: each law has a namespace of its own and
      removes it. One that listens on 127.0.0.1 is also reached through a proxy that cuts.
    * `time_scale` is how many real seconds a second of the laws takes: small is fast, but must
      leave the broker time to answer. With `manual_clock` time costs nothing.
    * `settings` are the transport's own, for every law; `small` lowers its limits (payload,
      buffers) for those laws that go to a limit; `full` bounds what the broker stores of one
      namespace to less than 4 MB.
    * `small_buffer` is how many QoS 0 messages wait for one listener under `small`.
    * `restart` ends the broker the hard way and starts it again on its data.
    * `pause` stops the broker for so many real seconds, then lets it go on.
    * `inbox` is the URL of another transport, to keep the completion records there.
    * `catalog` replaces the installed plugins (a plugin that is not installed, or a wrong one).
    """

    url: str = attrs.field(repr=False)  # it may hold a password, as may the settings
    time_scale: float = 1.0
    manual_clock: bool = False
    settings: Mapping[str, object] = attrs.field(factory=dict, repr=False)
    small: Mapping[str, Any] = attrs.field(factory=dict)
    small_buffer: int | None = None
    full: Mapping[str, Any] | None = None
    catalog: Catalog | None = None
    restart: Callable[[], Awaitable[None]] | None = None
    pause: Callable[[float], Awaitable[None]] | None = None
    inbox: str | None = attrs.field(default=None, repr=False)
    not_shown: dict[str, str] = attrs.field(factory=dict, init=False)
    """Laws that could not be shown here, with what was missing. Never skipped in silence."""
    left_behind: dict[str, str] = attrs.field(factory=dict, init=False)
    """Namespaces that could not be removed from the broker, with the reason."""

    @property
    def abilities(self) -> frozenset[Ability]:
        """What this harness can do."""
        there = {
            Ability.RESTART: self.restart is not None,
            Ability.CUT: self.proxied_port is not None,
            Ability.FILL: self.full is not None,
            Ability.PAUSE: self.pause is not None,
        }
        return frozenset(ability for ability, able in there.items() if able)

    @property
    def law_seconds(self) -> float:
        """How many real seconds one law may take: more where time goes by more slowly."""
        return _LAW_SECONDS * max(1.0, self.time_scale)

    @property
    def declared(self) -> frozenset[Capability]:
        """What the transport's descriptor says it can do at best."""
        return self.descriptor.capabilities

    @property
    def descriptor(self) -> TransportDescriptor:
        """What the plugin says about its transport."""
        return self.plugins.transport_for(parse_url(self.url)[0].scheme)

    @property
    def plugins(self) -> Catalog:
        """The plugins the laws work with."""
        return self.catalog or installed_catalog()

    @property
    def proxied_port(self) -> int | None:
        """The port of loopback the broker listens on, when the URL names exactly one."""
        hosts = parse_url(self.url)[0].hosts
        if len(hosts) == 1 and hosts[0][0] in _LOOPBACK:
            return hosts[0][1]
        return None

    def url_at(self, port: int) -> str:
        """Return the URL with another port of loopback in it."""
        head, _, tail = self.url.rpartition(f":{self.proxied_port}")
        return f"{head}:{port}{tail}"

    def make(self, url: str | None = None, **settings: object) -> Transport:
        """Return a transport that is not open yet."""
        address, query = parse_url(url or self.url)
        given = {**self.settings, **settings}
        resolved = resolve_settings(self.descriptor, query, os.environ, given)
        transport = self.descriptor.factory(address, resolved.transport, resolved.explicit)
        if self.inbox is None:
            return transport
        return with_records_at(self.inbox, transport, self.descriptor, self.plugins)

    def clock(self) -> Clock:
        """Return a clock for one law."""
        return ManualClock() if self.manual_clock else SystemClock()

    def run(
        self,
        act: Callable[[Stage], Awaitable[None]],
        needs: frozenset[Capability | Ability] = frozenset(),
        name: str = "",
    ) -> None:
        """Run one law on an event loop of its own; whatever it made is removed, also after Ctrl-C.

        What the law needs and the connected broker or this harness lacks is noted in `not_shown`.
        Raises what the law raises, `TimeoutError` when it hangs, and `KeyboardInterrupt`.
        """
        if missing := needs - self.declared - self.abilities:
            self._note(name, missing)
            return

        async def perform(stage: Stage) -> None:
            await stage.open()
            if missing := needs - stage.anchor.capabilities.present - self.abilities:
                self._note(name, missing)
            else:
                await act(stage)

        async def bounded() -> None:
            stage = Stage(self)
            try:
                async with asyncio.timeout(self.law_seconds):
                    try:
                        await perform(stage)
                    finally:
                        _stay_cancelled()
            except NotShown as reason:
                self.not_shown[name] = str(reason)
            finally:
                try:
                    await finish(stage.close())  # bounded by itself
                finally:
                    _stay_cancelled()

        with asyncio.Runner() as runner:
            runner.run(bounded())

    def _note(self, name: str, missing: Iterable[Capability | Ability]) -> None:
        self.not_shown[name] = ", ".join(sorted(each.value for each in missing))


def _stay_cancelled() -> None:
    """Raise again what the code under a law swallowed."""
    if (task := asyncio.current_task()) and task.cancelling():
        # Ctrl-C and the timeout cancel; what a law cancels it expects to be.
        raise asyncio.CancelledError


@attrs.frozen
class Law:
    """What is known of a law without running it."""

    name: str
    words: str
    """What it promises."""
    qos: QualityOfService | None
    needs: frozenset[Capability | Ability]


def law(
    qos: int | None = None, needs: Iterable[Capability | Ability] = ()
) -> Callable[[Callable[[Any, Stage], Awaitable[None]]], Callable[[Any, Harness], None]]:
    """Make a test method of a law: `async def test_…(self, stage)` becomes `(self, harness)`.

    `qos` is the quality it belongs to, `needs` what it takes: a law whose capability is not
    there, or whose ability the harness lacks, is listed in `Harness.not_shown`.
    """
    quality = None if qos is None else QualityOfService(qos)
    wanted = frozenset(needs) | (frozenset() if quality is None else {QOS_CAPABILITY[quality]})

    def decorate(
        function: Callable[[Any, Stage], Awaitable[None]],
    ) -> Callable[[Any, Harness], None]:
        name = function.__name__

        @functools.wraps(function)
        def test(self: Any, harness: Harness) -> None:
            harness.run(functools.partial(function, self), wanted, name)

        del test.__wrapped__  # or pytest would look for `stage`
        words = " ".join((function.__doc__ or "").split())
        test.law = Law(name, words, quality, wanted)  # type: ignore[attr-defined]
        return test

    return decorate
