"""Streams and consumers on the server: created, verified, reconciled, or refused by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from catga.errors import CapabilityError, ConfigurationError
from catga.spi import EventKind, Mode, QualityOfService, Records, Source, Topology
from catga_nats import names
from catga_nats.api import JetStreamApi, Result
from catga_nats.connection import Connection
from catga_nats.errors import ApiError, api_failure
from catga_nats.reconcile import Step, Thing, changes, check_echo
from catga_nats.risks import (
    BOUNDS,
    UNTRIMMED,
    Risk,
    consumer_risks,
    found_risks,
    narrowing_risks,
)
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
        self._topologies: dict[str, Topology] = {}
        self.streams: dict[str, dict[str, Any]] = {}
        """The configuration the server really has, by name."""

    async def prepare(self, topology: Topology, mode: Mode) -> None:
        """Make sure of the streams and the durable consumers of this topology.

        Everything is looked at and judged before the first change: what refuses to start leaves
        the server as it was.
        """
        lasting = [each for each in topology.sources if each.durable and not each.ephemeral]
        streams = await self._look(self._things(topology), mode)
        if streams and topology.records is not Records.ONLY:
            if self._wants.trims:
                self._accept([UNTRIMMED], topology)
            if mode is Mode.CREATE:
                streams[0] = self._with_schedules(streams[0], topology)
        consumers = await self._look([self._wants.consumer(each) for each in lasting], mode)
        self._judge([*streams, *consumers], topology)
        for config in await self._act(streams, mode, topology):
            self.streams[config["name"]] = config
            promised = self._topologies.get(config["name"])
            if promised is None or promised.qos <= topology.qos:
                self._topologies[config["name"]] = topology
        configs = await self._act(consumers, mode, topology)
        for source, config in zip(lasting, configs, strict=True):
            self._note(source, names.consumer(source), config)

    def _things(self, topology: Topology) -> list[Thing]:
        """The streams that are needed; that of the messages is the first."""
        if topology.records is Records.ONLY:
            return [self._wants.inbox(topology)]
        if not topology.publishes and not any(each.durable for each in topology.sources):
            return []
        version = self._connection.version
        return self._wants.streams(
            topology, schedules=version >= SCHEDULES_SINCE, atomic=is_atomic(version)
        )

    def _with_schedules(self, step: Step, topology: Topology) -> Step:
        """Let the server hold messages back also in a stream that was made without; not in one
        with a bound, which would then drop what it has accepted."""
        there = step.config
        if (
            step.has is None
            or self._connection.version < SCHEDULES_SINCE
            or there.get("allow_msg_schedules")
            or any(there.get(key, -1) > 0 for key in (*BOUNDS, "max_msgs_per_subject"))
        ):
            return step
        log = self._wants.log(topology, schedules=True)
        keys = frozenset({"allow_msg_schedules", "discard"} & log.config.keys())
        log = attrs.evolve(log, preferred=keys)
        return Step(log, step.has, changes(log, step.has, may_change=True))

    def _judge(self, steps: Iterable[Step], topology: Topology) -> None:
        """Say what the server's settings are worth once these steps are taken, or refuse them."""
        for step in steps:
            self._accept(narrowing_risks(step), topology)
            if step.thing.stream:
                self._accept(consumer_risks(step.config), topology)
            else:
                self._accept(found_risks(step.config, topology), topology)

    def weakened(self, results: Mapping[str, Result]) -> list[str]:
        """Return what has become of streams in use, by name, that breaks a promise which was given
        at the start."""
        found = []
        for name, result in results.items():
            topology = self._topologies.get(name)
            if isinstance(result, ApiError):
                found.append(str(result))
            elif topology is not None:
                risks = found_risks(result["config"], topology)
                found += [risk.words for risk in risks if _breaks(risk, topology)]
        return found

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
        await self._ensure(thing, mode)
        return True

    async def has_outbox(self, namespace: str, mode: Mode) -> bool:
        """Say whether somebody has to carry on what transactions publish, and make sure of its
        consumer."""
        if names.tx_stream(namespace) not in self.streams:
            return False
        await self._ensure(self._wants.outbox(namespace), mode)
        return True

    async def create_ephemeral(self, source: Source, name: str) -> None:
        """Create the consumer of one ephemeral subscription."""
        config = await self._ensure(self._wants.ephemeral(source, name), Mode.CREATE)
        self._note(source, name, config)

    async def prepare_nodes(self, namespace: str, ttl: float, mode: Mode) -> None:
        """Make sure of the bucket of nodes, and that it keeps them for `ttl` seconds."""
        await self._ensure(self._wants.nodes(namespace, ttl), mode)

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
        """Say each once; refuse what breaks a promise and is not accepted by name."""
        for risk in risks:
            if _breaks(risk, topology):
                raise CapabilityError(f'{risk.words} (or accept_risk=["{risk.name}"])')
            if risk.words not in self._said:
                self._said.add(risk.words)
                self._connection.emit(EventKind.RISK, risk.words)

    async def _ensure(self, thing: Thing, mode: Mode) -> dict[str, Any]:
        """Make sure of one thing that no promise depends on."""
        (config,) = await self._act(await self._look([thing], mode), mode)
        return config

    async def _look(self, things: Sequence[Thing], mode: Mode) -> list[Step]:
        """Ask what is there, of all things at once. Raises `ConfigurationError` for what is
        missing and may not be created, or differs and cannot be changed."""
        results = await self._api.call([(thing.info, None) for thing in things])
        absent = _places(results, _MISSING)
        if absent and mode is Mode.VERIFY:
            missing = ", ".join(things[place].name for place in absent)
            raise ConfigurationError(f"not there: {missing}; start once with mode create")
        steps = []
        for place, (thing, result) in enumerate(zip(things, results, strict=True)):
            if place in absent:
                steps.append(Step(thing, None, thing.config))
            else:
                info = _answer(thing, result)
                has = info["config"]
                asked = changes(thing, has, may_change=mode is Mode.CREATE)
                steps.append(Step(thing, has, asked, busy=_is_busy(info)))
        return steps

    async def _act(
        self, steps: Sequence[Step], mode: Mode, topology: Topology | None = None
    ) -> list[dict[str, Any]]:
        """Create what is not there, change what differs, all at once; return what there is then.

        Where another bus was faster, what it has made is looked at and judged anew.
        """
        places = [place for place, step in enumerate(steps) if step.asked]
        results = await self._api.call([steps[place].call for place in places])
        configs = [step.config for step in steps]
        for place, result in zip(places, results, strict=True):
            step = steps[place]
            if isinstance(result, ApiError) and result.err_code in _TAKEN and step.has is None:
                again = await self._look([step.thing], mode)
                if topology is not None:
                    self._judge(again, topology)
                (configs[place],) = await self._act(again, mode, topology)
            else:
                configs[place] = _answer(step.thing, result)["config"]
                check_echo(step.thing, step.asked, configs[place])
        return configs


def _breaks(risk: Risk, topology: Topology) -> bool:
    strict = risk.always or topology.qos is QualityOfService.EXACTLY_ONCE
    return bool(strict and risk.name and risk.name not in topology.accept_risk)


def _is_busy(info: Mapping[str, Any]) -> bool:
    """Whether members of a group may have messages in hand, or ask for some."""
    return bool(info.get("num_waiting") or info.get("num_ack_pending"))


def _places(results: Sequence[Result], codes: frozenset[int]) -> list[int]:
    return [
        place
        for place, result in enumerate(results)
        if isinstance(result, ApiError) and result.err_code in codes
    ]


def _answer(thing: Thing, result: Result) -> dict[str, Any]:
    if isinstance(result, ApiError):
        raise api_failure(thing.name, result)
    return result
