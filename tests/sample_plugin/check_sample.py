"""What a third party may rely on; run by `nox -s sample_plugin`, where the wheel is installed."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import subprocess
import sys

import attrs
import pytest

from catga.bus import Bus
from catga.errors import CapabilityError, ConfigurationError
from catga.model.message import Event
from catga.model.qos import QualityOfService
from catga.plugins import installed_catalog


@attrs.frozen
class Noticed(Event):
    qos = QualityOfService.AT_MOST_ONCE
    what: str


@attrs.frozen
class Stored(Event):
    what: str


def test_the_wheel_is_installed_and_found_by_its_entry_point() -> None:
    assert "site-packages" in str(importlib.metadata.distribution("catga-sample").locate_file(""))
    catalog = installed_catalog()
    assert catalog.problems == ()
    assert catalog.transport_for("sample").name == "sample"
    assert "catga_sample.transport" not in sys.modules, "the factory imports it, nothing else"


def test_the_program_lists_it() -> None:
    command = [sys.executable, "-m", "catga", "plugins", "--json"]
    shown = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    (plugin,) = shown["plugins"]
    assert (plugin["name"], plugin["distribution"], plugin["version"]) == (
        "sample",
        "catga-sample",
        "1.0.0",
    )
    assert plugin["transports"][0]["capabilities"] == ["at-most-once"]


def test_a_message_goes_through() -> None:
    async def program() -> list[Noticed]:
        bus = Bus("sample://?buffer=9", service="check")
        seen: list[Noticed] = []
        arrived = asyncio.Event()

        @bus.handle(Noticed, broadcast=True)
        async def notice(event: Noticed) -> None:
            seen.append(event)
            arrived.set()

        async with bus:
            await bus.publish(Noticed("one"))
            await asyncio.wait_for(arrived.wait(), 5)
        return seen

    assert asyncio.run(program()) == [Noticed("one")]


def test_what_it_does_not_declare_is_refused() -> None:
    async def program() -> None:
        async with Bus("sample://", service="check") as bus:
            await bus.publish(Stored("one"))

    with pytest.raises(CapabilityError, match="stores nothing"):
        asyncio.run(program())


def test_its_settings_are_checked() -> None:
    async def program(url: str) -> None:
        async with Bus(url, service="check"):
            pass

    for url, words in (
        ("sample://?bufer=1", "did you mean 'buffer'"),
        ("sample://?buffer=0", ">="),
    ):
        with pytest.raises(ConfigurationError, match=words):
            asyncio.run(program(url))


def test_other_schemes_say_what_to_install() -> None:
    with pytest.raises(ConfigurationError, match=r"known schemes: sample; .*catga-core\[nats\]"):
        installed_catalog().transport_for("nats")
