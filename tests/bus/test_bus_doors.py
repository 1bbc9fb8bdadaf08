"""What a bus says when it cannot come in: which server, why, and never with whose password."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from bus.bus_kit import PASSWORD, USER, Fast, Order, Place, eventually, keep, run
from catga import (
    AuthenticationError,
    Bus,
    CatgaError,
    ConfigurationError,
    ConnectionLost,
    Parts,
    PluginConflictError,
    PluginLoadError,
)
from catga.plugins import load_catalog
from catga.testing import ServerProcess, free_port
from core.plugin_kit import PluginFolder

SECOND = {"connect_deadline": 1}
WRONG = "wr0ng-word"


def check_secrets(error: BaseException, bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing a user or a log may see of it shows the user information."""
    shown = [str(error), repr(error), repr(bus), str(vars(error)), caplog.text]
    shown += [repr(record.args) for record in caplog.records]
    shown += traceback.format_exception(error)
    for secret in (USER, PASSWORD, WRONG):
        assert not [words for words in shown if secret in words]


def with_login(url: str, user: str = USER, password: str = PASSWORD) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{user}:{password}@{rest.rpartition('@')[2]}"


def without_login(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def refusal(url: str, kind: type[CatgaError], caplog: pytest.LogCaptureFixture) -> str:
    """What a bus at this address says; within the connect deadline, nothing left behind."""
    words = ""

    async def law() -> None:
        nonlocal words
        bus = Bus(url, service="tests", settings=SECOND)
        keep(bus, Order)
        began = time.monotonic()
        with pytest.raises(kind) as caught:
            await bus.__aenter__()
        assert time.monotonic() - began < 2.5
        assert type(caught.value) is kind
        check_secrets(caught.value, bus, caplog)
        words = str(caught.value)

    with caplog.at_level(logging.DEBUG):
        run(law)
    return words


@pytest.mark.parametrize("scheme", ["kafka", "http", "natss", "redis+tls"])
def test_an_unknown_scheme_names_the_known_ones(scheme: str) -> None:
    async def law() -> None:
        with pytest.raises(ConfigurationError) as caught:
            await Bus(with_login(f"{scheme}://host"), service="tests").__aenter__()
        words = str(caught.value)
        for known in ("inmemory", "nats", "redis", "rediss", "tls"):
            assert known in words
        assert PASSWORD not in words

    run(law)


@pytest.mark.parametrize("scheme", ["nats", "tls", "redis", "rediss", "inmemory"])
def test_a_transport_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    catalog = load_catalog(entry_points=PluginFolder(tmp_path, monkeypatch).entry_points())
    distribution = {"tls": "nats", "rediss": "redis"}.get(scheme, scheme)

    async def law() -> None:
        bus = Bus(with_login(f"{scheme}://host"), service="tests", parts=Parts(catalog=catalog))
        with pytest.raises(ConfigurationError, match=f"catga-{distribution}") as caught:
            await bus.__aenter__()
        assert PASSWORD not in str(caught.value)

    run(law)


def test_a_broken_and_a_contested_plugin_are_named_and_the_others_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Place
) -> None:
    plugins = PluginFolder(tmp_path, monkeypatch)
    shared = "@hookimpl\ndef catga_transports(): return [carrier({!r}, 'shared')]"
    plugins.add("one", shared.format("one"))
    plugins.add("two", shared.format("two"))
    plugins.add("tram", "import no_such_client")
    for name in ("inmemory", "nats", "redis"):
        plugins.add(name, f"from catga_{name}.plugin import catga_transports")
    catalog = load_catalog(entry_points=plugins.entry_points(), disabled=())
    parts = Parts(catalog=catalog)

    async def law() -> None:
        with pytest.raises(PluginConflictError, match=r"dist-one.*dist-two.*'shared'"):
            await Bus("shared://", service="tests", parts=parts).__aenter__()
        with pytest.raises(PluginLoadError, match=r"dist-tram.*no_such_client"):
            await Bus("tram://", service="tests", parts=parts).__aenter__()
        bus = place.bus(parts=parts)
        numbers = keep(bus, Fast)
        async with bus:
            await bus.publish(Fast(1))
            await eventually(lambda: numbers)

    run(law)
    assert {type(problem) for problem in catalog.problems} == {PluginConflictError, PluginLoadError}


@pytest.mark.parametrize("scheme", ["nats", "tls", "redis", "rediss"])
def test_a_server_that_is_not_there(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    words = refusal(with_login(f"{scheme}://127.0.0.1:{port}"), ConnectionLost, caplog)
    assert f"{scheme}://127.0.0.1:{port}" in words


@pytest.mark.parametrize("scheme", ["nats", "tls", "redis", "rediss"])
def test_a_server_that_says_nothing(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        words = refusal(with_login(f"{scheme}://{address}"), ConnectionLost, caplog)
    assert f"{scheme}://{address}" in words


@pytest.mark.parametrize("scheme", ["nats", "tls", "redis", "rediss"])
def test_something_else_that_listens_there(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def law() -> None:
        async with await asyncio.start_server(greet, "127.0.0.1", 0) as web:
            address = f"127.0.0.1:{web.sockets[0].getsockname()[1]}"
            url = with_login(f"{scheme}://{address}")
            bus = Bus(url, service="tests", settings=SECOND)
            with pytest.raises(ConnectionLost) as caught:
                await bus.__aenter__()
            check_secrets(caught.value, bus, caplog)
            assert f"{scheme}://{address}" in str(caught.value)

    with caplog.at_level(logging.DEBUG):
        run(law)


@pytest.fixture
def guarded(brokered: Place) -> Iterator[Place]:
    with brokered.flavour.guarded_server() as server:
        yield attrs.evolve(brokered, server=server)


def test_wrong_credentials(guarded: Place, caplog: pytest.LogCaptureFixture) -> None:
    shown = without_login(guarded.url)
    for url in (
        with_login(guarded.url, USER, WRONG),
        with_login(guarded.url, WRONG, PASSWORD),
        shown,
    ):
        assert shown in refusal(url, AuthenticationError, caplog)


def test_right_credentials_are_never_shown(
    guarded: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """Also not when the server goes away and comes back."""
    server: Any = guarded.server
    assert isinstance(server, ServerProcess)

    async def law() -> None:
        bus = guarded.bus(settings={"lease": 2})  # what the dying socket had comes with its end
        numbers = keep(bus, Order)
        async with bus:
            await bus.publish(Order(1))
            server.kill()
            await eventually(lambda: not_ok(bus))
            with pytest.raises(ConnectionLost) as caught:
                await bus.publish(Fast(1))
            check_secrets(caught.value, bus, caplog)
            server.start()
            await bus.publish(Order(2))
            await eventually(lambda: sorted(set(numbers)) == [1, 2])
            check_secrets(caught.value, bus, caplog)

    with caplog.at_level(logging.DEBUG):
        run(law)


async def not_ok(bus: Bus) -> bool:
    health = await bus.health()
    assert PASSWORD not in health.detail
    return not health.ok


def test_tls_against_a_server_in_clear_never_sends_the_login(
    brokered: Place, caplog: pytest.LogCaptureFixture
) -> None:
    secure = {"nats": "tls", "redis": "rediss"}[brokered.kind]
    url = brokered.url.replace(brokered.kind, secure, 1)
    assert url in refusal(with_login(url), ConnectionLost, caplog)


def test_of_several_hosts_one_that_is_there_is_enough(brokered: Place) -> None:
    scheme, _, host = brokered.url.partition("://")
    url = f"{scheme}://127.0.0.1:{free_port()},{host}"

    async def law() -> None:
        async with Bus(url, service="tests", namespace=brokered.namespace) as bus:
            assert (await bus.health()).ok

    run(law)
