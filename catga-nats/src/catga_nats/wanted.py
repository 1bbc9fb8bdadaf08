"""What Catga wants to find on a server: streams and consumers as plain data. Pure."""

from __future__ import annotations

import math
from typing import Any

import attrs

from catga.errors import ConfigurationError
from catga.spi import QualityOfService, Records, Source, Start, Topology
from catga_nats import names
from catga_nats.reconcile import Thing
from catga_nats.settings import NatsSettings, nanoseconds

__all__ = ["WAITING_LEASE", "Wants"]

_NO_LIMIT = -1
_SHORTEST_AGE = 10**9
"""Nanoseconds."""
_SETTINGS_OF = {
    "num_replicas": {"replicas"},
    "ack_wait": {"ack_wait", "lease"},
}
"""Where the server's word for something is not the one settings use, or not the only one."""
_WINDOW = 600.0
_STORED_KINDS = ("log", "to", "once", "redo", "later")
WAITING_LEASE = 5.0
"""Seconds after which another one carries on what is delayed; a server that was killed has
forgotten its last naks, and hands out so much later what they held back."""


class Wants:
    """Turns settings, and which of them somebody gave, into things."""

    def __init__(self, settings: NatsSettings, explicit: frozenset[str]) -> None:
        self._settings = settings
        self._explicit = explicit

    @property
    def trims(self) -> bool:
        """Whether somebody asked by name for what is settled and old to be removed."""
        return "retention" in self._explicit

    def streams(self, topology: Topology, *, schedules: bool, atomic: bool) -> list[Thing]:
        """The streams of one namespace; those of completion records and transactions only at QoS 2.

        `schedules`: the server can hold messages back by itself; `atomic`: it can store several in
        one step.
        """
        things = [
            self.log(topology, schedules=schedules),
            self._dead(topology),
        ]
        here = topology.records is Records.HERE
        if here and topology.qos is QualityOfService.EXACTLY_ONCE:
            things.append(self.inbox(topology))
            if atomic:
                things.append(self._transactions(topology))
        return things

    def log(self, topology: Topology, *, schedules: bool) -> Thing:
        """The stream of everything that is to be handled."""
        name = names.log_stream(topology.namespace)
        subjects = [f"{topology.namespace}.{kind}.>" for kind in _STORED_KINDS]
        thing = self._stream(name, subjects, topology)
        if not schedules or self._settings.max_bytes:
            return thing
        # A stream with schedules can't refuse what is too much (nats-server 2.15), which is the
        # same thing as long as nothing is.
        config = {**thing.config, "discard": "old", "allow_msg_schedules": True}
        return attrs.evolve(thing, config=config)

    def waiting(self, namespace: str) -> Thing:
        """The consumer of what is held back, where the server has no schedules."""
        subject = names.waiting_subject(namespace, ">")
        return _carrying(names.log_stream(namespace), names.waiting_consumer(), subject)

    def outbox(self, namespace: str) -> Thing:
        """The consumer of what transactions publish."""
        subject = names.out_subject(namespace, ">")
        return _carrying(names.tx_stream(namespace), names.out_consumer(), subject)

    def consumer(self, source: Source) -> Thing:
        """The durable consumer of one group and type."""
        name = names.consumer(source)
        config = {
            **self._pull(source, name),
            "durable_name": name,
            "deliver_policy": "new" if source.start is Start.NEW else "all",
            "filter_subjects": names.stored_subjects(source),
        }
        return self._consumer(source, config, f"CONSUMER.CREATE.{_path(source, name)}")

    def ephemeral(self, source: Source, name: str) -> Thing:
        """The consumer of one subscription; the server removes it when nobody asks for long."""
        (subject,) = names.stored_subjects(source)
        config = {
            **self._pull(source, name),
            "deliver_policy": "new",
            "filter_subject": subject,
            "inactive_threshold": 60 * 10**9,
        }
        return self._consumer(source, config, f"CONSUMER.CREATE.{_path(source, name)}.{subject}")

    def _stream(self, name: str, subjects: list[str], topology: Topology) -> Thing:
        settings = self._settings
        max_age = nanoseconds(settings.max_age) if settings.max_age else 0
        if settings.duplicate_window is not None:
            window = nanoseconds(settings.duplicate_window)
        else:
            # What is stored once for ever has subjects instead: this is for the rest.
            for_ever = math.isinf(topology.dedupe_window)
            window = int((_WINDOW if for_ever else topology.dedupe_window) * 1e9)
            window = min(window, max_age) if max_age else window  # the server allows no more
        config = {
            **self._kept(name, subjects),
            "max_age": max_age,
            "max_bytes": settings.max_bytes or -1,
            "duplicate_window": window,
        }
        keys = {"storage", "num_replicas", "max_age", "max_bytes", "duplicate_window"}
        thing = self._stream_thing(config, keys)
        if "dedupe_window" in self._explicit:  # W: more than that is as good
            thing = attrs.evolve(thing, at_least={"duplicate_window": window})
        if "max_bytes" in self._explicit and settings.max_bytes:  # a bound that drops is none
            thing = attrs.evolve(thing, explicit=thing.explicit | {"discard"})
        return thing

    def _dead(self, topology: Topology) -> Thing:
        name = names.dead_stream(topology.namespace)
        thing = self._stream(name, [f"{topology.namespace}.dead.>"], topology)
        config = {**thing.config, "allow_direct": True}  # read in batches
        return attrs.evolve(thing, config=config, preferred=frozenset({"allow_direct"}))

    def inbox(self, topology: Topology) -> Thing:
        """The bucket of completion records: the stream a KV client would make."""
        namespace = topology.namespace
        config = {
            **self._kept(names.inbox_stream(namespace), [f"$KV.{names.bucket(namespace)}.>"]),
            "max_msgs_per_subject": 1,
            "max_age": int(topology.completion_ttl * 1e9),
            "allow_direct": True,
            "allow_rollup_hdrs": True,
            "deny_delete": True,
        }
        return self._stream_thing(config, {"storage", "num_replicas"})

    def _transactions(self, topology: Topology) -> Thing:
        """What transactions write, for ever, and their records, each with its own expiry."""
        namespace = topology.namespace
        config = {
            **self._kept(names.tx_stream(namespace), [f"{namespace}.tx.>"]),
            "max_msgs_per_subject": 1,
            "allow_direct": True,
            "allow_atomic": True,
            "allow_msg_ttl": True,
        }
        return self._stream_thing(config, {"storage", "num_replicas"})

    def nodes(self, namespace: str, ttl: float) -> Thing:
        """The bucket of nodes: the stream a KV client would make, with a history of 10.

        Whoever reads judges leases by the time of each record, so that the age of the bucket only
        clears away: the server does so up to a second late (nats-server 2.10 to 2.15).
        """
        config = {
            **self._kept(names.nodes_stream(namespace), [f"$KV.{names.nodes_bucket(namespace)}.>"]),
            "max_msgs_per_subject": 10,
            "max_age": max(int(ttl * 1e9), _SHORTEST_AGE),
            "allow_direct": True,
            "allow_rollup_hdrs": True,
            "deny_delete": True,
        }
        thing = self._stream_thing(config, {"storage", "num_replicas"})
        return attrs.evolve(thing, at_least={"max_age": config["max_age"]})

    def _kept(self, name: str, subjects: list[str]) -> dict[str, Any]:
        return {
            "name": name,
            "subjects": subjects,
            "retention": "limits",  # others forget ids, and drop what no group has asked for yet
            "discard": "new",  # refuse what is too much: an accepted message is never dropped
            "storage": self._settings.storage.value,
            "num_replicas": self._settings.replicas,
        }

    def _stream_thing(self, config: dict[str, Any], keys: set[str]) -> Thing:
        name = config["name"]
        return Thing(
            f"the stream {name}",
            config,
            info=f"STREAM.INFO.{name}",
            create=f"STREAM.CREATE.{name}",
            update=f"STREAM.UPDATE.{name}",
            required=frozenset({"subjects", "retention"}),
            explicit=self._given(keys),
        )

    def _pull(self, source: Source, name: str) -> dict[str, Any]:
        settings = self._settings
        if settings.max_deliver is not None and settings.max_deliver <= source.attempts:
            raise ConfigurationError(
                f"max_deliver={settings.max_deliver} must be above the {source.attempts} attempts "
                "of the bus: the server strands what reaches its limit"
            )
        wait = nanoseconds(settings.ack_wait) if settings.ack_wait else int(source.lease * 1e9)
        return {
            "name": name,
            "ack_policy": "explicit",
            "ack_wait": wait,
            # What reaches a limit stays unsettled for ever: who counts and parks is the engine.
            "max_deliver": settings.max_deliver or _NO_LIMIT,
            "max_ack_pending": settings.max_ack_pending,
            "replay_policy": "instant",
        }

    def _consumer(self, source: Source, config: dict[str, Any], create: str) -> Thing:
        name = config["name"]
        return Thing(
            f"the consumer {name}",
            config,
            info=f"CONSUMER.INFO.{_path(source, name)}",
            create=create,
            update=create,
            stream=names.log_stream(source.namespace),
            required=frozenset({"ack_policy", "filter_subjects"} & config.keys()),
            explicit=self._given({"ack_wait", "max_deliver", "max_ack_pending"}),
            preferred=frozenset({"max_deliver"}),
            at_least={"max_deliver": source.attempts + 1},
        )

    def _given(self, keys: set[str]) -> frozenset[str]:
        return frozenset(key for key in keys if _SETTINGS_OF.get(key, {key}) & self._explicit)


def _carrying(stream: str, name: str, subject: str) -> Thing:
    path = f"{stream}.{name}"
    config = {
        "name": name,
        "durable_name": name,
        "deliver_policy": "all",
        "filter_subject": subject,
        "ack_policy": "explicit",
        "ack_wait": int(WAITING_LEASE * 1e9),
        "max_deliver": _NO_LIMIT,
        "max_ack_pending": _NO_LIMIT,
        "replay_policy": "instant",
    }
    return Thing(
        f"the consumer {name}",
        config,
        info=f"CONSUMER.INFO.{path}",
        create=f"CONSUMER.CREATE.{path}.{subject}",
        update=f"CONSUMER.CREATE.{path}.{subject}",
        stream=stream,
        required=frozenset({"ack_policy", "filter_subject"}),
        preferred=frozenset({"max_deliver", "max_ack_pending"}),
    )


def _path(source: Source, name: str) -> str:
    return f"{names.log_stream(source.namespace)}.{name}"
