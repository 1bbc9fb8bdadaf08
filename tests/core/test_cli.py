"""The `catga` program: what it shows, how it ends, and that it speaks in one line when it fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import IO

import click
import pytest
from click.testing import CliRunner, Result

from catga.cli import app, main
from catga.cli import plugins as plugins_command
from catga.errors import ConnectionLost
from catga.plugins import load_catalog
from core.plugin_kit import PluginFolder

BUS = """
import asyncio, sys
from catga.errors import ConnectionLost
from catga.model.outcome import Drained

class Bus:
    def __init__(self, fails=False, hangs=False):
        self.fails, self.hangs = fails, hangs
    def __repr__(self): return "<Bus of the test>"
    async def __aenter__(self):
        if self.fails: raise ConnectionLost("nobody at nats://h:1")
        return self
    async def __aexit__(self, *details): print("closed", flush=True)
    async def drain(self):
        if self.hangs: await asyncio.Event().wait()
        return Drained(3, 2, 1)

bus, broken, stuck = Bus(), Bus(fails=True), Bus(hangs=True)
class holder: bus = bus
"""


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PluginFolder:
    """A folder of plugins that the program sees instead of the installed ones."""
    folder = PluginFolder(tmp_path, monkeypatch)
    for module in (app, plugins_command):
        monkeypatch.setattr(
            module,
            "installed_catalog",
            lambda: load_catalog(entry_points=folder.entry_points(), disabled=()),
        )
    return folder


TRANSPORT = """
@hookimpl
def catga_transports():
    return [carrier("good", "good", "goods", capabilities=frozenset({Capability.AT_MOST_ONCE}))]
"""
COMMANDS = """
import click
@hookimpl
def catga_cli_commands():
    return [CommandDescriptor(name, load) for name, load in (
        ("sing", lambda: click.Command("sing", callback=lambda: click.echo("la"), help="Sings.")),
        ("mute", lambda: 1 / 0),
        ("mime", lambda: "nothing"),
    )]
"""


CLASHING_SETTINGS = """
S = attrs.make_class("S", {"lease": attrs.field(default=1)})
@hookimpl
def catga_transports():
    return [carrier("x", settings=S)]
"""


def test_plugins_are_listed(plugins: PluginFolder) -> None:
    plugins.add("good", TRANSPORT)
    result = invoke("plugins")
    assert result.exit_code == 0
    for word in ("good", "goods", "dist-good", "1.5", "at-most-once", "on"):
        assert word in result.output


def test_plugins_as_json_are_one_object(plugins: PluginFolder) -> None:
    plugins.add("good", TRANSPORT)
    plugins.add("sing", COMMANDS)
    shown = json.loads(invoke("plugins", "--json").output)
    assert shown["ok"] is True
    assert shown["schemes"] == {"good": "good", "goods": "good"}
    good, sing = shown["plugins"]
    assert good == {
        "name": "good",
        "distribution": "dist-good",
        "version": "1.5",
        "state": "on",
        "transports": [
            {
                "name": "good",
                "schemes": ["good", "goods"],
                "capabilities": ["at-most-once"],
                "settings": ["room"],
            }
        ],
        "commands": [],
        "problems": [],
    }
    assert sing["commands"] == ["sing", "mute", "mime"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import no_such_module", "no_such_module"),
        ("def catga_transport(): pass", "did you mean catga_transports?"),
        (
            TRANSPORT
            + "\n@hookimpl\ndef catga_cli_commands(): return [CommandDescriptor('run', print)]",
            "the command 'run', which is catga's own",
        ),
        (
            CLASHING_SETTINGS,
            "names of the core's: lease",
        ),
    ],
)
def test_a_problem_is_shown_in_full_and_ends_in_status_1(
    plugins: PluginFolder, code: str, words: str
) -> None:
    plugins.add("awry", code)
    result = invoke("plugins")
    assert result.exit_code == 1
    assert words in result.output
    assert "'awry' (dist-awry 1.5)" in result.output
    shown = json.loads(invoke("plugins", "--json").output)
    assert shown["ok"] is False
    assert words in shown["plugins"][0]["problems"][0]["reason"]


def test_without_plugins_it_says_what_to_install(plugins: PluginFolder) -> None:
    del plugins
    result = invoke("plugins")
    assert result.exit_code == 0
    assert "pip install 'catga-core[inmemory]'" in result.output


def test_commands_of_plugins_are_ours(plugins: PluginFolder) -> None:
    plugins.add("sing", COMMANDS)
    shown = invoke("--help").output
    assert "Sings." in shown
    assert "run" in shown
    assert invoke("sing").output == "la\n"


def test_a_plugins_broken_command_is_named(plugins: PluginFolder) -> None:
    plugins.add("sing", COMMANDS)
    for name, words in (("mute", "ZeroDivisionError"), ("mime", "not a click command")):
        result = invoke(name)
        assert result.exit_code == 1
        assert result.output.startswith(f"error: the command '{name}' cannot be used: ")
        assert words in result.output


def test_version_and_help() -> None:
    assert invoke("--version").output.startswith("catga-core ")
    for arguments in (["-h"], ["run", "--help"], ["plugins", "-h"]):
        result = invoke(*arguments)
        assert result.exit_code == 0
        assert result.output.startswith("Usage:")
    assert invoke("no-such-command").exit_code == 2


def test_a_catga_error_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ConnectionLost("nobody at nats://h:1")

    monkeypatch.setitem(main.commands, "fail", click.Command("fail", callback=fail))
    short, long = invoke("fail"), invoke("-v", "fail")
    assert (short.exit_code, short.output) == (1, "error: nobody at nats://h:1\n")
    assert long.exit_code == 1
    assert "Traceback" in long.output
    assert long.output.endswith(short.output)


# --- catga run, as a process


@contextmanager
def running(tmp_path: Path, target: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "made_up_app.py").write_text(dedent(BUS))
    (tmp_path / "awry_app.py").write_text("import no_such_module")
    process = subprocess.Popen(
        [sys.executable, "-m", "catga", "run", *options, target],
        cwd=tmp_path,
        env={**os.environ, "CATGA_DISABLE_PLUGINS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_until(stream: IO[str] | None, words: str) -> str:
    assert stream is not None
    text = ""
    for line in stream:
        text += line
        if words in line:
            return text
    raise AssertionError(f"no {words!r} in {text!r}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("target", ["made_up_app:bus", "made_up_app:holder.bus"])
def test_a_signal_drains_the_bus(tmp_path: Path, number: signal.Signals, target: str) -> None:
    with running(tmp_path, target) as process:
        read_until(process.stderr, "running <Bus of the test>")
        process.send_signal(number)
        read_until(process.stderr, "stopped: 3 handled, 2 given back, 1 abandoned")
        assert process.wait(10) == 0
        assert process.stdout is not None
        assert process.stdout.read() == "closed\n"


def test_the_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    with running(tmp_path, "made_up_app:stuck") as process:
        read_until(process.stderr, "running")
        process.send_signal(signal.SIGINT)
        read_until(process.stderr, "again ends it at once")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT


@pytest.mark.parametrize(
    ("target", "status", "words"),
    [
        ("made_up_app:broken", 1, "error: nobody at nats://h:1"),
        ("made_up_app:nothing", 1, "error: cannot load 'made_up_app:nothing': AttributeError"),
        ("made_up_app:Bus", 1, "error: 'made_up_app:Bus' is a type, not a bus"),
        ("made_up_app:sys", 1, "error: 'made_up_app:sys' is a module, not a bus"),
        ("awry_app:bus", 1, "error: cannot load 'awry_app:bus': ModuleNotFoundError"),
        ("no_such_app:bus", 1, "error: cannot load"),
        ("made_up_app", 2, "is not of the form MODULE:BUS"),
        (":bus", 2, "is not of the form MODULE:BUS"),
    ],
)
def test_what_cannot_run_is_said_without_a_traceback(
    tmp_path: Path, target: str, status: int, words: str
) -> None:
    with running(tmp_path, target) as process:
        shown = process.communicate(timeout=20)[1]
    assert process.returncode == status
    assert words in shown
    assert "Traceback" not in shown


def test_verbose_shows_where(tmp_path: Path) -> None:
    with running(tmp_path, "awry_app:bus", "-v") as process:
        shown = process.communicate(timeout=20)[1]
    assert "Traceback" in shown
    assert "awry_app.py" in shown
