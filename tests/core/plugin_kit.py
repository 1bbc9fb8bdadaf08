"""Plugins made on the spot: a module and a `.dist-info` folder, found like installed ones."""

from __future__ import annotations

import importlib.metadata
import itertools
import sys
from pathlib import Path
from textwrap import dedent

import pytest

_PREAMBLE = """
import attrs
from catga.model.capability import Capability
from catga.plugins import hookimpl
from catga.spi import CommandDescriptor, Instrument, Middleware, TransportDescriptor

@attrs.frozen
class Settings:
    room: int = 4

def carrier(name, *schemes, **more):
    fields = dict(factory=print, settings=Settings, capabilities=frozenset())
    return TransportDescriptor(name=name, schemes=schemes or (name,), **(fields | more))
"""


class PluginFolder:
    """A folder of installed distributions, each with one plugin."""

    _counter = itertools.count()

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.syspath_prepend(str(folder))
        self._monkeypatch = monkeypatch

    def add(self, name: str, code: str, distribution: str | None = None) -> None:
        """Install the plugin `name`, made of `code`, in version 1.5 of its distribution."""
        module = f"catga_made_up_{name}_{next(self._counter)}"
        distribution = distribution or f"dist-{name}"
        (self.folder / f"{module}.py").write_text(_PREAMBLE + dedent(code))
        info = self.folder / f"{distribution.replace('-', '_')}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n"
        )
        (info / "entry_points.txt").write_text(f"[catga]\n{name} = {module}\n")
        self._monkeypatch.delitem(sys.modules, module, raising=False)

    def entry_points(self) -> list[importlib.metadata.EntryPoint]:
        """Return what the import system finds in this folder."""
        return [
            point
            for distribution in importlib.metadata.distributions(path=[str(self.folder)])
            for point in distribution.entry_points
        ]
