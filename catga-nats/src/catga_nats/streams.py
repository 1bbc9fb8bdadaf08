"""Streams and consumers: created, verified, reconciled, or refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from catga.errors import CapabilityError, ConfigurationError
from catga.spi import EventKind, Mode, QualityOfService, Source, Start, Topology
from catga_nats import names
from catga_nats.api import Call, JetStreamApi, Result
from catga_nats.connection import Connection
from catga_nats.errors import ApiError, api_failure
from catga_nats.reconcile import Thing, changes, check_echo
from catga_nats.risks import Risk, found_risks
from catga_nats.settings import NatsSettings, nanoseconds

__all__ = ["Keeper"]

_MISSING = frozenset({10059, 10014})  # no such stream, no such consumer
_TAKEN = frozenset({10058, 10148, 10013})  # somebody was faster, with other settings
DELIVERY_MARGIN = 100
"""Deliveries the server allows beyond the attempts of the bus: also what is given back at a drain
counts as a delivery."""


class Keeper:
    """Everything Catga keeps on one server."""

    def __init__(
        self,
        connection: Connection,
        api: JetStreamApi,
        settings: NatsSettings,
        explicit: frozenset[str],
    ) -> None:
        self._connection = connection
        self._api = api
        self._settings = settings
        self._explicit = explicit
        self._said: set[str] = set()
        self._consumers: dict[tuple[str, str], dict[str, Any]] = {}
        self.streams: dict[str, dict[str, Any]] = {}
        """The configuration the server really has, by name."""

    async def prepare(self, topology: Topology, mode: Mode) -> None:
        """Make sure of the streams and the consumers of this topology."""
        sources = [source for source in topology.sources if source.durable]
        if not sources and not topology.publishes:
            return
        streams = self._streams(topology)
        configs = await self._ensure(streams, [_stream_calls(thing) for thing in streams], mode)
        self.streams.update({config["name"]: config for config in configs})
        for config in configs:
            self._accept(found_risks(config, topology), topology)
        durable = [source for source in sources if not source.ephemeral]
        things = [self.consumer(source) for source in durable]
        calls = [
            _consumer_calls(source, thing) for source, thing in zip(durable, things, strict=True)
        ]
        found = await self._ensure(things, calls, mode)
        for source, config in zip(durable, found, strict=True):
            self._note(source, names.consumer(source), config)

    def _note(self, source: Source, name: str, config: dict[str, Any]) -> None:
        """Remember what the server has, after checking that it can serve us at all."""
        if config.get("deliver_subject"):
            raise ConfigurationError(f"the consumer {name} pushes, a pull consumer is needed")
        self._consumers[source.namespace, name] = config

    async def create_ephemeral(self, source: Source, name: str) -> None:
        """Create the consumer of one ephemeral subscription."""
        thing = self.consumer(source, name)
        calls = _consumer_calls(source, thing, name)
        (config,) = await self._ensure([thing], [calls], Mode.CREATE)
        self._note(source, name, config)

    def lease(self, source: Source, name: str) -> float:
        """Return the seconds a delivery of this consumer really stays with its receiver.

        Raises `ConfigurationError` when `prepare` has not seen the source.
        """
        config = self._consumers.get((source.namespace, name))
        if config is None:
            raise ConfigurationError(f"the consumer {name} was not prepared")
        steps = config.get("backoff") or [config["ack_wait"]]  # a backoff replaces the wait
        return float(steps[0]) / 1e9

    def _accept(self, risks: Iterable[Risk], topology: Topology) -> None:
        """Say each once; at QoS 2 refuse what breaks it and is not accepted by name."""
        strict = topology.qos is QualityOfService.EXACTLY_ONCE
        for risk in risks:
            if strict and risk.name and risk.name not in topology.accept_risk:
                raise CapabilityError(f'{risk.words} (or accept_risk=["{risk.name}"])')
            if risk.words not in self._said:
                self._said.add(risk.words)
                self._connection.emit(EventKind.RISK, risk.words)

    def _streams(self, topology: Topology) -> list[Thing]:
        namespace = topology.namespace
        subjects = [f"{namespace}.{kind}.>" for kind in ("log", "to", "redo")]
        things = [
            self._stream(names.log_stream(namespace), subjects, topology),
            self._stream(names.dead_stream(namespace), [f"{namespace}.dead.>"], topology),
        ]
        if topology.qos is QualityOfService.EXACTLY_ONCE:
            things.append(self._inbox(topology))
        return things

    def _stream(self, name: str, subjects: list[str], topology: Topology) -> Thing:
        settings = self._settings
        max_age = nanoseconds(settings.max_age) if settings.max_age else 0
        window = (
            nanoseconds(settings.duplicate_window)
            if settings.duplicate_window
            else int(topology.dedupe_window * 1e9)
        )
        if max_age and "duplicate_window" not in self._explicit:
            window = min(window, max_age)  # the server refuses a window beyond the age
        config = {
            "name": name,
            "subjects": subjects,
            "retention": "limits",
            "discard": "new",
            "storage": settings.storage.value,
            "num_replicas": settings.replicas,
            "max_age": max_age,
            "max_bytes": settings.max_bytes or -1,
            "duplicate_window": window,
        }
        owned = {"replicas": "num_replicas"}
        keys = {owned.get(key, key) for key in self._explicit} & config.keys()
        required = frozenset({"subjects", "retention"})
        return Thing(f"the stream {name}", config, required, frozenset(keys))

    def _inbox(self, topology: Topology) -> Thing:
        """The bucket of completion records: the stream a KV client would make."""
        bucket = names.bucket(topology.namespace)
        config = {
            "name": names.inbox_stream(topology.namespace),
            "subjects": [f"$KV.{bucket}.>"],
            "retention": "limits",
            "discard": "new",
            "storage": self._settings.storage.value,
            "num_replicas": self._settings.replicas,
            "max_msgs_per_subject": 1,
            "max_age": int(topology.completion_ttl * 1e9),
            "allow_direct": True,
            "allow_rollup_hdrs": True,
            "deny_delete": True,
        }
        explicit = {"replicas": "num_replicas", "storage": "storage"}
        keys = frozenset(explicit[key] for key in self._explicit if key in explicit)
        return Thing(f"the stream {config['name']}", config, frozenset({"subjects"}), keys)

    def consumer(self, source: Source, ephemeral: str = "") -> Thing:
        """What the server is to have for this source."""
        settings = self._settings
        lease = settings.ack_wait.total_seconds() if settings.ack_wait else source.lease
        name = ephemeral or names.consumer(source)
        new = source.ephemeral or source.start is Start.NEW
        config: dict[str, Any] = {
            "name": name,
            "deliver_policy": "new" if new else "all",
            "ack_policy": "explicit",
            "ack_wait": int(lease * 1e9),
            "max_deliver": settings.max_deliver or source.attempts + DELIVERY_MARGIN,
            "max_ack_pending": settings.max_ack_pending,
            "replay_policy": "instant",
        }
        filters = names.stored_subjects(source)
        if ephemeral:
            config |= {"filter_subject": filters[0], "inactive_threshold": 60 * 10**9}
        else:
            config |= {"filter_subjects": filters, "durable_name": name}
        keys = self._explicit & {"ack_wait", "max_deliver", "max_ack_pending"}
        required = {"ack_policy", *({"filter_subjects"} & config.keys())}
        return Thing(f"the consumer {name}", config, frozenset(required), keys)

    async def _ensure(
        self, things: Sequence[Thing], calls: Sequence[tuple[Call, Call, Call]], mode: Mode
    ) -> list[dict[str, Any]]:
        """Ask what is there, create what is not, change what differs: all things at once."""
        results = await self._api.call([info for info, _, _ in calls])
        absent = [place for place, result in enumerate(results) if _failed(result, _MISSING)]
        if absent and mode is Mode.VERIFY:
            missing = ", ".join(things[place].name for place in absent)
            raise ConfigurationError(f"not there: {missing}; start once with mode create")
        created = await self._api.call([calls[place][1] for place in absent])
        raced = [
            place for place, result in zip(absent, created, strict=True) if _failed(result, _TAKEN)
        ]
        for place, result in zip(absent, created, strict=True):
            results[place] = result
        for place, result in zip(
            raced, await self._api.call([calls[place][0] for place in raced]), strict=True
        ):
            results[place] = result
        configs = [_config(thing, result) for thing, result in zip(things, results, strict=True)]
        for place in set(absent) - set(raced):
            check_echo(things[place], things[place].config, configs[place])
        return await self._reconcile(things, calls, configs, mode)

    async def _reconcile(
        self,
        things: Sequence[Thing],
        calls: Sequence[tuple[Call, Call, Call]],
        configs: list[dict[str, Any]],
        mode: Mode,
    ) -> list[dict[str, Any]]:
        may_change = mode is Mode.CREATE
        wanted = [
            changes(thing, config, may_change=may_change) | _more_deliveries(thing, config)
            for thing, config in zip(things, configs, strict=True)
        ]
        places = [place for place, change in enumerate(wanted) if change]
        updates = [_with(calls[place][2], configs[place] | wanted[place]) for place in places]
        for place, result in zip(places, await self._api.call(updates), strict=True):
            configs[place] = _config(things[place], result)
            check_echo(things[place], wanted[place], configs[place])
        return configs


def _stream_calls(thing: Thing) -> tuple[Call, Call, Call]:
    name = thing.config["name"]
    config = thing.config
    return (
        (f"STREAM.INFO.{name}", None),
        (f"STREAM.CREATE.{name}", config),
        (f"STREAM.UPDATE.{name}", None),
    )


def _consumer_calls(source: Source, thing: Thing, name: str = "") -> tuple[Call, Call, Call]:
    stream, name = names.log_stream(source.namespace), name or names.consumer(source)
    create = f"CONSUMER.CREATE.{stream}.{name}"
    if "filter_subject" in thing.config:
        create += f".{thing.config['filter_subject']}"
    body = {"stream_name": stream, "config": thing.config, "action": "create"}
    return (
        (f"CONSUMER.INFO.{stream}.{name}", None),
        (create, body),
        (create, {"stream_name": stream}),
    )


def _with(update: Call, config: dict[str, Any]) -> Call:
    name, envelope = update
    if envelope is None:
        return name, config
    return name, {**envelope, "config": config, "action": "update"}


def _more_deliveries(thing: Thing, has: dict[str, Any]) -> dict[str, Any]:
    """A limit that is not above our own attempts would strand messages: raise it."""
    wanted, present = thing.config.get("max_deliver", -1), has.get("max_deliver", -1)
    if "max_deliver" in thing.explicit or present <= 0 or present >= wanted:
        return {}
    return {"max_deliver": wanted}


def _failed(result: Result, codes: frozenset[int]) -> bool:
    return isinstance(result, ApiError) and result.err_code in codes


def _config(thing: Thing, result: Result) -> dict[str, Any]:
    if isinstance(result, ApiError):
        raise api_failure(thing.name, result)
    config: dict[str, Any] = result["config"]
    return config
