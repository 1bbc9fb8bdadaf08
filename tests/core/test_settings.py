"""URLs and settings: three layers, one flat namespace, nothing ignored, no secret shown."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catga.errors import ConfigurationError, PluginIncompatibleError
from catga.model.qos import QualityOfService
from catga.settings import CONTROL_VARIABLES, Resolved, Settings, parse_url, resolve_settings
from catga.spi import Secret, Transport, TransportDescriptor


class Storage(StrEnum):
    FILE = "file"
    MEMORY = "memory"


@attrs.frozen
class CarrierSettings:
    replicas: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    storage: Storage = Storage.FILE
    max_age: timedelta | None = None
    token: Secret | None = None
    password: str | None = attrs.field(default=None, repr=False)
    ratio: float = 0.5
    seeds: tuple[int, ...] = ()
    label: str = ""


def no_factory(*_: object) -> Transport:
    raise NotImplementedError


CARRIER = TransportDescriptor(
    name="carrier",
    schemes=("carrier",),
    factory=no_factory,
    settings=CarrierSettings,
    capabilities=frozenset(),
)


def resolve(
    query: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    code: Mapping[str, Any] | None = None,
    others: tuple[str, ...] = ("nats",),
) -> Resolved:
    return resolve_settings(CARRIER, query or {}, environment or {}, code or {}, others=others)


# --- URLs


@pytest.mark.parametrize(
    ("url", "hosts", "path", "shown"),
    [
        ("nats://a:4222,b:4223", (("a", 4222), ("b", 4223)), "", "nats://a:4222,b:4223"),
        ("NATS://a", (("a", None),), "", "nats://a"),
        ("redis://h:1/3", (("h", 1),), "3", "redis://h:1/3"),
        ("redis://[::1]:6379,[fe80::1]", (("::1", 6379), ("fe80::1", None)), "", None),
        ("redis+cluster://my_host", (("my_host", None),), "", "redis+cluster://my_host"),
        ("inmemory://", (), "", "inmemory://"),
        ("inmemory://name", (("name", None),), "", "inmemory://name"),
        ("x://h/a%20b?", (("h", None),), "a b", None),
    ],
)
def test_a_url_is_split(
    url: str, hosts: tuple[tuple[str, int | None], ...], path: str, shown: str | None
) -> None:
    address, query = parse_url(url)
    assert (address.hosts, address.path, query) == (hosts, path, {})
    assert address.username is address.password is None
    assert address.shown == (shown or address.shown)


def test_user_information_is_decoded_into_secrets_and_never_shown() -> None:
    address, query = parse_url("nats://us%40er:p%3Ass%2F%F0%9F%94%91@a:1,b?lease=5s&label=a+%26b")
    assert address.username is not None
    assert address.password is not None
    assert (address.username.reveal(), address.password.reveal()) == ("us@er", "p:ss/🔑")
    assert query == {"lease": "5s", "label": "a &b"}
    for shown in (repr(address), str(address), address.shown):
        assert "us@er" not in shown
        assert "ss/" not in shown


def test_a_user_or_a_password_alone() -> None:
    only_user, _ = parse_url("nats://token@h")
    only_password, _ = parse_url("redis://:pass@h")
    assert only_user.username is not None
    assert only_user.password is None
    assert only_password.username is None
    assert only_password.password is not None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "scheme"),
        ("127.0.0.1:4222", "scheme"),
        ("://h", "scheme"),
        ("9p://h", "scheme"),
        ("nats:h", "scheme"),
        ("nats://s3cret@h:0", "port"),
        ("nats://s3cret@h:65536", "port"),
        ("nats://s3cret@h:", "port"),
        ("nats://h:s3cret", "port"),
        ("nats://h:٣", "port"),
        ("nats://user:s3cret", "port"),
        ("nats://user:s3c/ret@h", "@ in the wrong place"),
        ("nats://user:s3c?ret@h", "@ in the wrong place"),
        ("nats://user:s3c@ret@h", "@ in the wrong place"),
        ("nats://u:s3cret@a,u:s3cret@b", "@ in the wrong place"),
        ("nats://user:s3c#ret@h", "fragment"),
        ("nats://s3cret@a,,b", "host"),
        ("nats://s3cret@a b", "space"),
        ("nats://s3cret@a\r\nb", "space or a control"),
        ("nats://s3cret@[::1", "host"),
        ("nats://s3cret@[::1]x", "host"),
        ("nats://s3cret@[h]:1", "host"),
        ("nats://s3%cret@h", "%25"),
        ("nats://s3%ffcret@h", "UTF-8"),
        ("nats://h?s3cret", "key=value"),
        ("nats://h?a=s3cret&a=s3cret", "twice"),
    ],
)
def test_a_bad_url_is_refused_without_showing_any_of_it(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_url(url)
    assert words in str(caught.value)
    assert "s3c" not in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_configuration_error(text: str) -> None:
    for url in (text, f"nats://{text}", f"nats://u:p@{text}"):
        try:
            address, _ = parse_url(url)
        except ConfigurationError:
            continue
        assert all(host and (port is None or 0 < port < 65536) for host, port in address.hosts)


# --- layers


def test_defaults_are_those_of_the_design() -> None:
    core = resolve().core
    seconds = {
        "lease": 30,
        "handler_timeout": 60,
        "backoff_base": 0.5,
        "backoff_cap": 60,
        "dedupe_window": 600,
        "completion_ttl": 86400,
        "publish_deadline": 15,
        "connect_deadline": 5,
        "drain_deadline": 30,
        "request_timeout": 5,
    }
    assert {key: getattr(core, key).total_seconds() for key in seconds} == seconds
    assert (core.attempts, core.concurrency, core.prefetch, core.publish_window) == (
        5,
        16,
        500,
        1024,
    )
    assert core.default_qos is QualityOfService.AT_LEAST_ONCE
    assert (core.wait_handled, core.accept_risk, core.create) == (None, frozenset(), True)
    assert resolve().explicit == frozenset()


def test_code_wins_over_the_url_and_that_over_the_environment() -> None:
    environment = {"CATGA_LEASE": "1s", "CATGA_ATTEMPTS": "2", "CATGA_CARRIER_REPLICAS": "2"}
    resolved = resolve({"lease": "2s", "replicas": "3"}, environment, {"replicas": 5})
    assert resolved.core.lease == timedelta(seconds=2)
    assert resolved.core.attempts == 2
    assert resolved.transport.replicas == 5
    assert resolved.explicit == {"lease", "attempts", "replicas"}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("lease", "250ms", timedelta(milliseconds=250)),
        ("lease", "1.5s", timedelta(seconds=1.5)),
        ("lease", "5m", timedelta(minutes=5)),
        ("lease", "24h", timedelta(hours=24)),
        ("completion_ttl", "7d", timedelta(days=7)),
        ("lease", "12", timedelta(seconds=12)),
        ("handler_timeout", "none", None),
        ("handler_timeout", "9s", timedelta(seconds=9)),
        ("create", "false", False),
        ("create", "ON", True),
        ("wait_handled", "no", False),
        ("attempts", "7", 7),
        ("default_qos", "2", QualityOfService.EXACTLY_ONCE),
        ("default_qos", "exactly-once", QualityOfService.EXACTLY_ONCE),
        ("default_qos", "AT_MOST_ONCE", QualityOfService.AT_MOST_ONCE),
        ("accept_risk", "eviction, no-persistence", frozenset({"eviction", "no-persistence"})),
        ("storage", "memory", Storage.MEMORY),
        ("max_age", "1h", timedelta(hours=1)),
        ("ratio", "0.25", 0.25),
        ("seeds", "1,2", (1, 2)),
        ("label", "none", "none"),
    ],
)
def test_text_is_read_by_the_type_of_the_field(key: str, text: str, value: object) -> None:
    for resolved in (resolve({key: text}), resolve(code={key: text}), resolve(code={key: value})):
        holder = resolved.transport if hasattr(resolved.transport, key) else resolved.core
        assert getattr(holder, key) == value


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("lease", "soon", "duration such as"),
        ("lease", "-5s", "duration such as"),
        ("lease", "5 weeks", "duration such as"),
        ("lease", "1e3", "duration such as"),
        ("lease", "999999999999d", "duration such as"),
        ("lease", float("nan"), "duration such as"),
        ("lease", True, "duration such as"),
        ("lease", None, "duration such as"),
        ("lease", "0", "'lease' must lie between"),
        ("lease", "2d", "'lease' must lie between"),
        ("attempts", "0", "'attempts' must lie between"),
        ("attempts", "1.5", "a whole number"),
        ("attempts", "٣", "a whole number"),
        ("attempts", True, "a whole number"),
        ("attempts", None, "a whole number"),
        ("concurrency", "", "a whole number"),
        ("create", "maybe", "true or false"),
        ("create", 1, "true or false"),
        ("wait_handled", "maybe", "true or false, or none"),
        ("default_qos", "3", "at_most_once, at_least_once, exactly_once"),
        ("accept_risk", 5, "a list"),
        ("accept_risk", [1], "text"),
        ("storage", "tape", "file, memory"),
        ("ratio", "inf", "a number"),
        ("seeds", "1,x", "a whole number"),
        ("label", 5, "text"),
        ("replicas", "0", "'replicas' must be >= 1"),
        ("backoff_base", "2h", "longer than 'backoff_cap'"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_key_and_place(
    key: str, value: Any, words: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(code={key: value})
    assert words in str(caught.value)
    assert key in str(caught.value)
    assert "in code" in str(caught.value)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ({"query": {"laese": "1s"}}, r"'laese' \(in the URL\); did you mean 'lease'\?"),
        ({"code": {"replica": 1}}, r"'replica' \(in code\); did you mean 'replicas'\?"),
        ({"query": {"zzz": "1"}}, r"'zzz' .*known are: accept_risk"),
        ({"environment": {"CATGA_LAESE": "1"}}, r"environment\); did you mean 'CATGA_LEASE'"),
        ({"environment": {"CATGA_REPLICAS": "1"}}, r"did you mean 'CATGA_CARRIER_REPLICAS'"),
        ({"environment": {"CATGA_CARRIER_REPLIKAS": "1"}}, r"did you mean 'CATGA_CARRIER_REP"),
        ({"environment": {"CATGA_REDIS_X": "1"}}, r"unknown setting 'CATGA_REDIS_X'"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(
    layers: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        resolve(**layers)


def test_control_variables_and_those_of_other_plugins_are_no_settings() -> None:
    environment = dict.fromkeys(CONTROL_VARIABLES, "x")
    environment |= {"CATGA_TEST_SEED": "1", "CATGA_NATS_REPLICAS": "x", "PATH": "x"}
    environment |= {"CATGA_LEASE": ""}
    assert resolve(environment=environment).explicit == frozenset()


def test_a_secret_is_read_and_never_shown() -> None:
    token = resolve({"token": "s3cret"}).transport.token
    assert token.reveal() == "s3cret"
    with pytest.raises(ConfigurationError) as caught:
        resolve({"token": "s3cret", "replicas": "0"}, code={"lease": "1s"})
    assert "s3cret" not in str(caught.value)
    for name in ("token", "password"):  # by its type, or because no repr shows it
        with pytest.raises(ConfigurationError) as caught:
            resolve(code={name: b"s3cret"})
        assert "s3cret" not in str(caught.value)
        assert "text, or none" in str(caught.value)


def test_a_transport_may_not_reuse_a_name_of_the_core() -> None:
    @attrs.frozen
    class Clashing:
        lease: int = 1

    with pytest.raises(PluginIncompatibleError, match="lease"):
        resolve_settings(attrs.evolve(CARRIER, settings=Clashing), {}, {}, {})


@given(st.dictionaries(st.sampled_from([*attrs.fields_dict(Settings), "x"]), st.text(max_size=8)))
def test_any_query_gives_settings_or_a_configuration_error(query: dict[str, str]) -> None:
    with contextlib.suppress(ConfigurationError):
        assert isinstance(resolve(query).core, Settings)
