"""What the repository itself promises: each distribution is whole, and nothing ties it down."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = ["catga-core", "catga-inmemory", "catga-nats", "catga-redis"]
EACH = pytest.mark.parametrize("name", DISTRIBUTIONS)


def project(name: str) -> dict[str, Any]:
    content: dict[str, Any] = tomllib.loads((ROOT / name / "pyproject.toml").read_text())
    return content


@EACH
def test_a_distribution_brings_what_it_should(name: str) -> None:
    for wanted in ("README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"):
        assert (ROOT / name / wanted).is_file(), wanted
    assert list((ROOT / name / "src").glob("*/py.typed"))
    assert project(name)["project"]["license"] == "MIT"


@EACH
def test_a_plugin_asks_for_a_range_of_the_core(name: str) -> None:
    wanted = [
        line for line in project(name)["project"]["dependencies"] if line.startswith("catga-core")
    ]
    assert wanted == ([] if name == "catga-core" else ["catga-core>=0.1.0.dev0,<0.2"])


@EACH
def test_entry_points_are_named_for_their_transport(name: str) -> None:
    short = name.removeprefix("catga-")
    points = project(name)["project"].get("entry-points", {}).get("catga", {})
    assert points == ({} if short == "core" else {short: f"catga_{short}.plugin"})


def test_the_extras_of_the_core_reach_every_transport() -> None:
    extras = project("catga-core")["project"]["optional-dependencies"]
    for name in DISTRIBUTIONS[1:]:
        (wanted,) = extras[name.removeprefix("catga-")]
        assert wanted.startswith(f"{name}>=")
    for name in extras:
        assert name == "all" or name in extras["all"][0]
