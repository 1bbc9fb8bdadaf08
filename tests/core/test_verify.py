"""`catga verify`: what it says of a transport that keeps the contract, and of one that does not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from catga.cli import main, verifying
from catga.plugins import load_catalog
from catga.testing import free_port
from catga.testing.verify import family_names
from core.plugin_kit import PluginFolder

MADE_UP = """
import itertools, signal
import attrs, msgspec
from catga.errors import ConnectionLost
from catga_inmemory import plugin
from catga_inmemory.settings import MemorySettings
from catga_inmemory.transport import MemoryTransport

class Made(MemoryTransport):
    opened, removed, numbers = set(), set(), itertools.count()

    @property
    def server(self):
        return "made-up 1.2"

    async def prepare(self, topology, mode):
        self.opened.add(topology.namespace)
        await super().prepare(topology, mode)

    async def remove(self, namespace):
        self.removed.add(namespace)
        await super().remove(namespace)

{body}

@hookimpl
def catga_transports():
    (inmemory,) = plugin.catga_transports()
    make = lambda address, settings, explicit: Made(address, settings)
    changed = dict(name="made", schemes=("made",), factory=make, in_process={inside})
    return [attrs.evolve(inmemory, **changed)]
"""
FORGETS_IDS = """
    async def publish(self, batch):
        number = lambda: str(next(self.numbers))
        batch = [msgspec.structs.replace(each, message_id=number()) for each in batch]
        return await super().publish(batch)
"""
INTERRUPTED = """
    async def publish(self, batch):
        signal.raise_signal(signal.SIGINT)
        return await super().publish(batch)
"""
TERMINATED = INTERRUPTED.replace("SIGINT", "SIGTERM")
GOES_AWAY = """
    async def open(self, runtime):
        if self.opened:
            raise ConnectionLost("nobody at made://alice:s3cret@h:1")
        await super().open(runtime)
"""
SPEAKS = """
    async def open(self, runtime):
        raise ValueError("made://alice:s3cret@h\\nwith s3cret")
"""


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["verify", *arguments])


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install a transport `made://` with this body in its class; return the class."""

    def install(body: str = "", inside: bool = True) -> Any:
        folder = PluginFolder(tmp_path, monkeypatch)
        code = MADE_UP.replace("{body}", body).replace("{inside}", str(inside))
        folder.add("made", code)
        catalog = load_catalog(entry_points=folder.entry_points(), disabled=())
        assert catalog.problems == ()
        monkeypatch.setattr(verifying, "installed_catalog", lambda: catalog)
        (module,) = (sys.modules[each.module] for each in folder.entry_points())
        return module.Made

    return install


def test_in_memory_the_whole_contract_is_kept() -> None:
    result = invoke("inmemory://", "--programs", "3")
    assert result.exit_code == 0, result.output
    for family in family_names():
        assert f" {family} " in result.stdout
    assert "inmemory://: this process through inmemory (catga-inmemory" in result.stdout
    assert "for want of restart the broker on its data:\n" in result.stdout
    assert " 0 broken, 0 untried, in " in result.stdout
    assert result.stderr == ""


def test_as_json_it_is_one_object(made: Any) -> None:
    made()
    result = invoke("made://name", "--json", "--family", "recovery", "--family", "groups")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert shown["ok"] is True
    assert shown["url"] == "made://name"
    assert shown["versions"]["transport"] == "dist-made 1.5"
    assert shown["counts"]["broken"] == shown["counts"]["untried"] == 0
    assert {law["family"] for law in shown["laws"]} == {"groups", "recovery"}
    assert len(shown["laws"]) == sum(shown["counts"].values())
    for law in shown["laws"]:
        assert law["verdict"] == ("shown" if law["family"] == "groups" else "not shown")
        assert bool(law["reason"]) == (law["family"] == "recovery")
        assert law["law"].startswith("test_")
        assert law["words"]
        assert law["qos"] in {0, 1, 2}
        assert law["seconds"] >= 0


def test_a_certificate_that_shows_nothing_is_not_ok() -> None:
    for options in (("--json",), ()):
        result = invoke("inmemory://", "--family", "recovery", *options)
        assert result.exit_code == 2
        assert result.stderr == "error: no law was shown: what each one needs is listed\n"
        if options:
            assert json.loads(result.stdout)["ok"] is False
        else:
            assert "not shown for want of restart the broker on its data:\n" in result.stdout


def test_the_server_is_named_when_the_transport_tells(made: Any) -> None:
    made(inside=False)
    shown = json.loads(invoke("made://name", "--json", "--family", "poison").stdout)
    assert shown["versions"]["server"] == "made-up 1.2"
    assert shown["time_scale"] == 0.5


def test_a_broken_law_is_named_and_ends_in_status_1(made: Any) -> None:
    transport = made(FORGETS_IDS)
    result = invoke("made://", "--family", "exactly-once", "--family", "groups")
    assert result.exit_code == 1
    assert "broken: exactly-once: " in result.stdout
    assert "broken: groups: " not in result.stdout
    assert "Traceback" not in result.output
    assert transport.opened == transport.removed != set()
    broken = [
        law
        for law in json.loads(invoke("made://", "--family", "exactly-once", "--json").stdout)[
            "laws"
        ]
        if law["verdict"] == "broken"
    ]
    assert len(broken) > 1
    for law in broken:
        assert law["reason"].count("\n") == 0
        assert ", line " in law["reason"]
        assert law["report"].startswith("Traceback")
    first = invoke("made://", "--family", "exactly-once", "-x", "-v")
    assert first.exit_code == 1
    assert first.stdout.count("broken: ") == 1
    assert "stopped: at the first broken law" in first.stdout
    assert "Traceback" in first.stdout


def test_a_broken_law_is_found_by_programs_too(made: Any) -> None:
    made(FORGETS_IDS)
    result = invoke("made://", "--family", "programs", "--programs", "200")
    assert result.exit_code == 1
    assert "broken: programs: programs: " in result.stdout


@pytest.mark.parametrize("body", [INTERRUPTED, TERMINATED])
def test_after_ctrl_c_nothing_is_left(made: Any, body: str) -> None:
    transport = made(body)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    result = invoke("made://", "--family", "at-least-once", "--json")
    assert result.exit_code == 130
    shown = json.loads(result.stdout)
    assert (shown["ok"], shown["interrupted"], shown["laws"]) == (False, True, [])
    assert shown["counts"]["untried"] > 0
    assert len(transport.opened) == 1
    assert transport.opened == transport.removed
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_when_the_broker_goes_away_it_stops(made: Any) -> None:
    made(GOES_AWAY)
    result = invoke("made://alice:s3cret@h", "--family", "groups")
    assert result.exit_code == 1
    assert result.stdout.count("broken: ") == 1
    assert "stopped: the broker is gone: nobody at made://" in result.stdout
    assert "left behind: law-" in result.stdout
    assert "s3cret" not in result.output


def test_what_cannot_be_reached_is_one_line_without_credentials(made: Any) -> None:
    port = free_port()
    for url, words in (
        (f"nats://alice:s3cret@127.0.0.1:{port}", f"nats://127.0.0.1:{port}"),
        ("nosuch://alice:s3cret@h", "no transport for the URL scheme"),
        ("s3cret", "must begin with a scheme"),
        ("inmemory://?s3cret=1", "error: "),
    ):
        result = invoke(url)
        assert result.exit_code == 2, result.output
        assert words in result.stderr
        assert result.stderr.startswith("error: ")
        assert result.output.count("\n") == 1
        assert "alice" not in result.output
    made(SPEAKS)
    for options in ((), ("-v",)):
        result = invoke("made://alice:s3cret@h", *options)
        assert result.exit_code == 2
        assert result.stderr.endswith("error: made://h with ***\n")
        assert "s3cret" not in result.output
        assert ("Traceback" in result.stderr) == bool(options)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--family", "nosuch"), "'nosuch' is none of at-most-once, at-least-once"),
        (("--family", "programs", "--programs", "0"), "there is nothing to try"),
        (("--programs", "-1"), "--programs"),
        (("--time-scale", "0"), "--time-scale"),
    ],
)
def test_wrong_usage_is_status_2(arguments: tuple[str, ...], words: str) -> None:
    result = invoke("inmemory://", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


WITHOUT = """
import sys
sys.modules["pytest"] = sys.modules["hypothesis"] = None
from catga.cli import main
main(["verify", "inmemory://", *sys.argv[1:]])
"""


def _alone(*words: str) -> subprocess.CompletedProcess[str]:
    run = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert "Traceback" not in run.stdout + run.stderr
    return run


def test_without_the_extra_the_laws_are_shown_and_programs_are_not() -> None:
    run = _alone("-c", WITHOUT)
    assert run.returncode == 0, run.stderr
    assert "not shown for want of Hypothesis: pip install 'catga-core[testing]'" in run.stdout
    assert " 0 broken" in run.stdout
    for asked in (("--programs", "3"), ("--family", "scenarios")):
        run = _alone("-c", WITHOUT, *asked)
        assert run.returncode == 2
        assert run.stderr.endswith("need Hypothesis: pip install 'catga-core[testing]'\n")
        assert run.stderr.count("\n") == 1


def test_without_assertions_it_refuses() -> None:
    run = _alone("-O", "-m", "catga", "verify", "inmemory://")
    assert run.returncode == 2
    assert run.stderr.startswith("error: python -O")
