"""What is public is sorted and documented, rooms are small, and importing does nothing."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(ROOT.glob("catga-*/src/**/*.py"))
LONGEST_FILE = 400
LONGEST_FUNCTION = 50

FILES = pytest.mark.parametrize(
    "path", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES]
)
Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def exported(tree: ast.Module) -> list[str] | None:
    """Return `__all__` as it is written, or None when the file has none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


def public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Documented]]:
    """Yield public classes and functions, and the public methods of public classes."""
    for node in body:
        if isinstance(node, Documented) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{node.name}.")


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def sorted_as_ruff(names: list[str]) -> list[str]:
    """CONSTANTS, then Classes, then functions, each in order."""
    return sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))


@FILES
def test_all_is_sorted_and_says_what_there_is(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = exported(tree)
    if names is None:
        assert path.name in {"__init__.py", "__main__.py"}, "a module says what it exports"
        return
    assert names == sorted_as_ruff(names)
    assert len(names) == len(set(names))
    spec = importlib.util.find_spec(module_name(path))
    assert spec is not None
    module = importlib.import_module(module_name(path))
    assert [name for name in names if not hasattr(module, name)] == []


@FILES
def test_public_things_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module itself"
    mute = [
        name
        for name, node in public(tree.body)
        if not ast.get_docstring(node) and not is_overload_or_setter(node)
    ]
    assert mute == []


def is_overload_or_setter(node: Documented) -> bool:
    return any(
        ast.unparse(each).endswith((".setter", "overload", ".default", ".validator"))
        for each in node.decorator_list
    )


@FILES
def test_rooms_are_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in functions(ast.parse(text))
        if node.end_lineno is not None and node.end_lineno - node.lineno >= LONGEST_FUNCTION
    }
    assert long == {}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts[2:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


WATCH = """
import sys, threading, asyncio, signal, logging
handlers = list(logging.getLogger().handlers)
before = {{number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}}
import {module}
import sys
loaded = {{name.partition(".")[0] for name in sys.modules}}
assert not loaded & {{"nats", "redis", "hiredis", "pytest", "hypothesis"}}, loaded
assert {plugins} or not any(name.startswith("catga_") for name in loaded), loaded
assert threading.active_count() == 1
assert logging.getLogger().handlers == handlers
assert {{number: signal.getsignal(number) for number in before}} == before
"""


@pytest.mark.parametrize(
    "module",
    ["catga", "catga.cli", "catga.testing", *(f"catga_{x}" for x in ("inmemory", "nats", "redis"))],
)
def test_importing_does_nothing(module: str) -> None:
    code = WATCH.format(module=module, plugins=module.startswith("catga_"))
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout + run.stderr == ""


@pytest.mark.parametrize("name", ["inmemory", "nats", "redis"])
def test_describing_a_transport_does_not_import_its_client(name: str) -> None:
    """A plugin's entry point is loaded for every bus, also for those of other transports."""
    code = f"""
import sys
from catga.plugins import load_catalog
catalog = load_catalog(disabled=())
assert {name!r} in catalog.transports, catalog.problems
assert not {{"nats", "redis"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
