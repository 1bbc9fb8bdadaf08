"""Streams and consumers on the server: created, verified, reconciled, or refused by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from catga.errors import CapabilityError, ConfigurationError
from catga.spi import EventKind, Mode, QualityOfService, Records, Source, Topology
from catga_nats import names
from catga_nats.api import Call, JetStreamApi, Result
from catga_nats.connection import Connection
from catga_nats.errors import ApiError, api_failure
from catga_nats.reconcile import Thing, changes, check_echo
from catga_nats.risks import BOUNDS, UNTRIMMED, Risk, consumer_risks, found_risks
from catga_nats.schedules import SCHEDULES_SINCE
from catga_nats.transactions import is_atomic
from catga_nats.wanted import Wants

__all__ = ["Provisioner"]

_MISSING = frozenset({10059, 10014})  # no such stream, no such consumer
_STREAMS = (
    names.log_stream,
    names.dead_stream,
    names.inbox_stream,
    names.tx_stream,
    names.nodes_stream,
)
_TAKEN = frozenset({10058, 10148, 10013})  # another bus was faster, with other settings


class Provisioner:
    """Brings about what a topology needs, and remembers what the server really has."""

    def __init__(self, connection: Connection, api: JetStreamApi, wants: Wants) -> None:
        self._connection = connection
        self._api = api
        self._wants = wants
        self._said: set[str] = set()
        self._consumers: dict[tuple[str, str], dict[str, Any]] = {}
        self.streams: dict[str, dict[str, Any]] = {}
        """The configuration the server really has, by name."""

    async def prepare(self, topology: Topology, mode: Mode) -> None:
        """Make sure of the streams and the durable consumers of this topology."""
        durable = [each for each in topology.sources if each.durable]
        if topology.records is Records.ONLY:
            await self._keep([self._wants.inbox(topology)], topology, mode)
            return
        if not durable and not topology.publishes:
            return
        if self._wants.trims:
            self._accept([UNTRIMMED], topology)
        schedules = self._connection.version >= SCHEDULES_SINCE
        things = self._wants.streams(
            topology, schedules=schedules, atomic=is_atomic(self._connection.version)
        )
        await self._keep(things, topology, mode, schedules=schedules and mode is Mode.CREATE)
        lasting = [each for each in durable if not each.ephemeral]
        things = [self._wants.consumer(source) for source in lasting]  # only now: for the stream
        for source, config in zip(lasting, await self._ensure(things, mode), strict=True):
            self._note(source, names.consumer(source), config)
            self._accept(consumer_risks(config), topology)

    async def _keep(
        self, things: Sequence[Thing], topology: Topology, mode: Mode, *, schedules: bool = False
    ) -> None:
        """Make sure of the streams, and of what they are worth; with `schedules` of the first."""
        configs = await self._ensure(things, mode)
        if schedules:
            configs[:1] = await self._with_schedules(configs[0], topology)
        for config in configs:
            self.streams[config["name"]] = config
            self._accept(found_risks(config, topology), topology)

    async def _with_schedules(
        self, has: dict[str, Any], topology: Topology
    ) -> list[dict[str, Any]]:
        """Let the server hold messages back also in a stream that was made without; not in one
        with a bound, which would then drop what it has accepted."""
        if has.get("allow_msg_schedules") or any(
            has.get(key, -1) > 0 for key in (*BOUNDS, "max_msgs_per_subject")
        ):
            return [has]
        log = self._wants.log(topology, schedules=True)
        keys = frozenset({"allow_msg_schedules", "discard"} & log.config.keys())
        return await self._ensure([attrs.evolve(log, preferred=keys)], Mode.CREATE)

    async def log_config(self, namespace: str) -> dict[str, Any]:
        """Return how the log stream is set. Raises `ConfigurationError` when there is none."""
        name = names.log_stream(namespace)
        if name not in self.streams:
            (result,) = await self._api.call([(f"STREAM.INFO.{name}", None)])
            if isinstance(result, ApiError):
                raise api_failure(f"the stream {name}", result)
            self.streams[name] = result["config"]
        return self.streams[name]

    async def needs_mover(self, namespace: str, mode: Mode) -> bool:
        """Say whether somebody has to carry what is delayed, and make sure of its consumer.

        With schedules there may still be what was stored before the server had them.
        """
        config = self.streams.get(names.log_stream(namespace))
        if config is None:
            return False
        thing = self._wants.waiting(namespace)
        if config.get("allow_msg_schedules"):
            (info,) = await self._api.call([(thing.info, None)])
            return not isinstance(info, ApiError)
        await self._ensure([thing], mode)
        return True

    async def has_outbox(self, namespace: str, mode: Mode) -> bool:
        """Say whether somebody has to carry on what transactions publish, and make sure of its
        consumer."""
        if names.tx_stream(namespace) not in self.streams:
            return False
        await self._ensure([self._wants.outbox(namespace)], mode)
        return True

    async def create_ephemeral(self, source: Source, name: str) -> None:
        """Create the consumer of one ephemeral subscription."""
        (config,) = await self._ensure([self._wants.ephemeral(source, name)], Mode.CREATE)
        self._note(source, name, config)

    async def prepare_nodes(self, namespace: str, ttl: float, mode: Mode) -> None:
        """Make sure of the bucket of nodes, and that it keeps them for `ttl` seconds."""
        await self._ensure([self._wants.nodes(namespace, ttl)], mode)

    async def remove(self, namespace: str) -> None:
        """Delete the streams of a namespace, with their consumers; what is not there is fine."""
        streams = [kept(namespace) for kept in _STREAMS]
        results = await self._api.call([(f"STREAM.DELETE.{name}", None) for name in streams])
        for name, result in zip(streams, results, strict=True):
            self.streams.pop(name, None)
            if isinstance(result, ApiError) and result.err_code not in _MISSING:
                raise api_failure(f"removing the stream {name}", result)

    def lease(self, source: Source, name: str) -> float:
        """Return the seconds a delivery of this consumer really stays with its receiver.

        Raises `ConfigurationError` when `prepare` has not seen the source.
        """
        config = self._prepared(source, name)
        steps = config.get("backoff") or [config["ack_wait"]]  # a backoff replaces the wait
        return float(steps[0]) / 1e9

    def unsettled_limit(self, source: Source, name: str) -> float:
        """Return how much this consumer may hand out unsettled, over all members."""
        limit: int = self._prepared(source, name).get("max_ack_pending", -1)
        return limit if limit > 0 else math.inf

    def _prepared(self, source: Source, name: str) -> dict[str, Any]:
        config = self._consumers.get((source.namespace, name))
        if config is None:
            raise ConfigurationError(f"the consumer {name} was not prepared")
        return config

    def _note(self, source: Source, name: str, config: dict[str, Any]) -> None:
        if config.get("deliver_subject"):
            raise ConfigurationError(f"the consumer {name} pushes, a pull consumer is needed")
        self._consumers[source.namespace, name] = config

    def _accept(self, risks: Iterable[Risk], topology: Topology) -> None:
        """Say each once; at QoS 2 refuse what breaks it and is not accepted by name."""
        strict = topology.qos is QualityOfService.EXACTLY_ONCE
        for risk in risks:
            if strict and risk.name and risk.name not in topology.accept_risk:
                raise CapabilityError(f'{risk.words} (or accept_risk=["{risk.name}"])')
            if risk.words not in self._said:
                self._said.add(risk.words)
                self._connection.emit(EventKind.RISK, risk.words)

    async def _ensure(self, things: Sequence[Thing], mode: Mode) -> list[dict[str, Any]]:
        """Ask what is there, create what is not, change what differs: all things at once."""
        results = await self._api.call([(thing.info, None) for thing in things])
        absent = _places(results, _MISSING)
        if absent and mode is Mode.VERIFY:
            missing = ", ".join(things[place].name for place in absent)
            raise ConfigurationError(f"not there: {missing}; start once with mode create")
        await self._fill(results, absent, [_creation(things[place]) for place in absent])
        raced = _places(results, _TAKEN)
        await self._fill(results, raced, [(things[place].info, None) for place in raced])
        configs = [_config(thing, result) for thing, result in zip(things, results, strict=True)]
        for place in set(absent) - set(raced):
            check_echo(things[place], things[place].config, configs[place])
        await self._reconcile(things, configs, mode)
        return configs

    async def _fill(self, results: list[Result], places: list[int], calls: list[Call]) -> None:
        for place, result in zip(places, await self._api.call(calls), strict=True):
            results[place] = result

    async def _reconcile(
        self, things: Sequence[Thing], configs: list[dict[str, Any]], mode: Mode
    ) -> None:
        may_change = mode is Mode.CREATE
        wanted = [
            changes(thing, config, may_change=may_change)
            for thing, config in zip(things, configs, strict=True)
        ]
        places = [place for place, change in enumerate(wanted) if change]
        calls = [
            (things[place].update, things[place].body(configs[place] | wanted[place], "update"))
            for place in places
        ]
        for place, result in zip(places, await self._api.call(calls), strict=True):
            configs[place] = _config(things[place], result)
            check_echo(things[place], wanted[place], configs[place])


def _creation(thing: Thing) -> Call:
    return thing.create, thing.body(thing.config, "create")


def _places(results: Sequence[Result], codes: frozenset[int]) -> list[int]:
    return [
        place
        for place, result in enumerate(results)
        if isinstance(result, ApiError) and result.err_code in codes
    ]


def _config(thing: Thing, result: Result) -> dict[str, Any]:
    if isinstance(result, ApiError):
        raise api_failure(thing.name, result)
    config: dict[str, Any] = result["config"]
    return config
