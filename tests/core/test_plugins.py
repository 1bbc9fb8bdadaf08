"""Loading plugins: whatever one of them does wrong is named, and harms no other."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from catga.errors import (
    ConfigurationError,
    PluginConflictError,
    PluginError,
    PluginIncompatibleError,
    PluginLoadError,
)
from catga.plugins import Catalog, PluginState, load_catalog
from core.plugin_kit import PluginFolder

GOOD = """
@hookimpl
def catga_transports():
    return [carrier("good", "good", "goods")]
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PluginFolder:
    return PluginFolder(tmp_path, monkeypatch)


def load(plugins: PluginFolder, *disabled: str) -> Catalog:
    return load_catalog(entry_points=plugins.entry_points(), disabled=disabled)


def only_problem(catalog: Catalog) -> PluginError:
    (problem,) = catalog.problems
    return problem


def transport(call: str) -> str:
    return f"""
@hookimpl
def catga_transports():
    return [{call}]
"""


def test_a_plugin_brings_transports_parts_and_commands(plugins: PluginFolder) -> None:
    plugins.add("good", GOOD)
    plugins.add(
        "extras",
        """
        class Quiet(Middleware): pass
        shared = Instrument()

        @hookimpl
        def catga_middleware(): return [Quiet, Quiet()]
        @hookimpl
        def catga_instruments(): return (shared,)
        @hookimpl
        def catga_cli_commands(): return [CommandDescriptor("sing", print)]
        """,
    )
    catalog = load(plugins)
    assert catalog.problems == ()
    assert catalog.transport_for("goods").name == "good"
    first, second = ([make() for make in catalog.middleware] for _ in range(2))
    assert first[0] is not second[0], "a class is called once per bus"
    assert first[1] is second[1], "an instance is shared"
    assert [make() for make in catalog.instruments] == [make() for make in catalog.instruments]
    assert [command.name for command in catalog.commands] == ["sing"]
    assert [(each.name, each.distribution, each.version) for each in catalog.plugins] == [
        ("extras", "dist-extras", "1.5"),
        ("good", "dist-good", "1.5"),
    ]


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("import no_such_module", PluginLoadError, "ModuleNotFoundError: No module named"),
        ("raise SystemExit(3)", PluginLoadError, "SystemExit: 3"),
        ("def broken(:", PluginLoadError, "SyntaxError"),
        ("@hookimpl\ndef catga_transports(): 1 / 0", PluginLoadError, "raised in its catga_tran"),
        ("@hookimpl\ndef catga_transports(bus): pass", PluginLoadError, "bus"),
        ("@hookimpl\nasync def catga_transports(): return []", PluginLoadError, "async"),
        ("@hookimpl\ndef catga_transports(): return 7", PluginLoadError, "no sequence"),
        ("@hookimpl\ndef catga_transport(): return []", PluginLoadError, "mean catga_transports?"),
        ("def catga_transportss(): return []", PluginLoadError, "mean catga_transports?"),
        ("def catga_transports(): return []", PluginLoadError, "without @hookimpl"),
        ("@hookimpl\ndef anything(): return []", PluginLoadError, "no hook of Catga"),
        (transport("'x'"), PluginLoadError, "a str as a transport"),
        (transport("TransportDescriptor"), PluginLoadError, "the class TransportDescriptor"),
        (transport("carrier('x', spi_version=99)"), PluginIncompatibleError, "version 99"),
        (transport("carrier('Bad Name')"), PluginLoadError, "names a transport 'Bad Name'"),
        (transport("carrier('x', 'UP:')"), PluginLoadError, "schemes ('UP:',)"),
        (transport("carrier('x', settings=int)"), PluginLoadError, "not an attrs class"),
        (transport("carrier('x', settings=Capability)"), PluginLoadError, "not an attrs class"),
        (transport("carrier('x', factory=None)"), PluginLoadError, "cannot be called"),
        (transport("carrier('x', capabilities=['x'])"), PluginLoadError, "capabilities"),
        (transport("carrier('x', capabilities=frozenset('x'))"), PluginLoadError, "capabilities"),
        (
            transport("carrier('x', settings=attrs.make_class('S', ['host']))"),
            PluginLoadError,
            "without a default: host",
        ),
        (
            "@attrs.frozen\nclass S:\n    x: 'Nowhere' = 1\n"
            + transport("carrier('x', settings=S)"),
            PluginLoadError,
            "Nowhere",
        ),
        ("@hookimpl\ndef catga_middleware(): return [7]", PluginLoadError, "Middleware"),
        ("@hookimpl\ndef catga_cli_commands(): return [print]", PluginLoadError, "as a command"),
        (
            "@hookimpl\ndef catga_cli_commands(): return [CommandDescriptor('A b', print)]",
            PluginLoadError,
            "names a command",
        ),
    ],
)
def test_a_broken_plugin_is_named_and_the_others_work(
    plugins: PluginFolder, code: str, kind: type[PluginError], words: str
) -> None:
    plugins.add("awry", code)
    plugins.add("good", GOOD)
    catalog = load(plugins)
    problem = only_problem(catalog)
    assert type(problem) is kind
    assert words in str(problem)
    assert "'awry' (dist-awry 1.5)" in str(problem)
    assert (problem.plugin, problem.distribution, problem.version) == ("awry", "dist-awry", "1.5")
    assert set(catalog.transports) == {"good", "goods"}


def test_one_wrong_hook_leaves_the_plugins_other_hooks_working(plugins: PluginFolder) -> None:
    plugins.add("half", GOOD + "\ndef catga_comands(): pass\n")
    catalog = load(plugins)
    assert "did you mean catga_cli_commands?" in str(only_problem(catalog))
    assert catalog.transport_for("good").name == "good"


def test_a_plugin_that_imports_lazily_is_like_others(plugins: PluginFolder) -> None:
    lazy = """
    def __dir__():
        return [*globals(), "Client"]
    def __getattr__(name):
        if name == "Client":
            return object()
        raise AttributeError(name)
    """
    plugins.add("good", GOOD + dedent(lazy))
    catalog = load(plugins)
    assert catalog.problems == ()
    assert catalog.transport_for("goods").name == "good"


def test_a_contested_scheme_is_off_for_both_until_one_is_switched_off(
    plugins: PluginFolder,
) -> None:
    plugins.add("one", transport("carrier('one', 'shared', 'one')"))
    plugins.add("two", transport("carrier('two', 'shared', 'two')"))
    catalog = load(plugins)
    assert set(catalog.transports) == {"one", "two"}
    with pytest.raises(PluginConflictError, match=r"dist-one 1\.5.*dist-two.*'shared'.*=two"):
        catalog.transport_for("shared")
    assert isinstance(only_problem(catalog), PluginConflictError)
    freed = load(plugins, "two")
    assert freed.problems == ()
    assert freed.transport_for("shared").name == "one"


def test_a_contested_transport_name_is_off_for_both(plugins: PluginFolder) -> None:
    plugins.add("one", transport("carrier('same', 'one')"))
    plugins.add("two", transport("carrier('same', 'two')"))
    catalog = load(plugins)
    assert catalog.transports == {}
    for scheme in ("one", "two"):
        with pytest.raises(PluginConflictError, match="the transport name 'same'"):
            catalog.transport_for(scheme)
    assert "'same'" in str(only_problem(catalog))


def test_two_plugins_of_one_name_are_both_off(plugins: PluginFolder) -> None:
    plugins.add("twin", transport("carrier('one')"), "dist-a")
    plugins.add("twin", transport("carrier('two')"), "dist-b")
    catalog = load(plugins)
    assert catalog.transports == {}
    assert [problem.distribution for problem in catalog.problems] == ["dist-a", "dist-b"]
    assert {each.state for each in catalog.plugins} == {PluginState.FAILED}


def test_contested_commands_are_off(plugins: PluginFolder) -> None:
    code = "@hookimpl\ndef catga_cli_commands(): return [CommandDescriptor('sing', print)]"
    plugins.add("one", code)
    plugins.add("two", code)
    catalog = load(plugins)
    assert catalog.commands == ()
    assert "the command 'sing'" in str(only_problem(catalog))


def test_a_plugin_that_is_switched_off_is_not_imported(
    plugins: PluginFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins.add("nats", "1 / 0")
    monkeypatch.setenv("CATGA_DISABLE_PLUGINS", " nats, ,other")
    catalog = load_catalog(entry_points=plugins.entry_points())
    assert catalog.problems == ()
    assert [each.state for each in catalog.plugins] == [PluginState.OFF]
    with pytest.raises(ConfigurationError, match=r"take 'nats' out of CATGA_DISABLE_PLUGINS"):
        catalog.transport_for("tls")


def test_the_reason_why_a_known_plugin_failed_is_given_when_it_is_asked_for(
    plugins: PluginFolder,
) -> None:
    plugins.add("redis", "import no_such_client")
    with pytest.raises(PluginLoadError, match="no_such_client"):
        load(plugins).transport_for("rediss")


@pytest.mark.parametrize(
    ("scheme", "extra"),
    [
        ("nats", "nats"),
        ("tls", "nats"),
        ("redis", "redis"),
        ("rediss", "redis"),
        ("redis+sentinel", "redis"),
        ("redis+cluster", "redis"),
        ("inmemory", "inmemory"),
    ],
)
def test_an_unknown_scheme_names_the_known_ones_and_what_to_install(
    plugins: PluginFolder, scheme: str, extra: str
) -> None:
    plugins.add("good", GOOD)
    with pytest.raises(ConfigurationError) as caught:
        load(plugins).transport_for(scheme)
    assert "good, goods" in str(caught.value)
    assert f"catga-{extra}" in str(caught.value)
    assert f"pip install 'catga-core[{extra}]'" in str(caught.value)


def test_an_unknown_scheme_points_at_failed_plugins(plugins: PluginFolder) -> None:
    plugins.add("awry", "1 / 0")
    with pytest.raises(ConfigurationError, match=r"'zmq'; known schemes: none.*wrong with: awry"):
        load(plugins).transport_for("zmq")


def test_a_factory_that_fails_is_named_when_a_bus_is_made(plugins: PluginFolder) -> None:
    code = "@hookimpl\ndef catga_middleware(): return [lambda: 1 / 0, dict]"
    plugins.add("awry", code)
    for make, words in zip(load(plugins).middleware, ("ZeroDivision", "a dict"), strict=True):
        with pytest.raises(PluginLoadError, match=words):
            make()


def test_one_distribution_found_twice_is_one_plugin(plugins: PluginFolder) -> None:
    plugins.add("good", GOOD)
    catalog = load_catalog(entry_points=plugins.entry_points() * 2, disabled=())
    assert catalog.problems == ()
    assert len(catalog.plugins) == 1
