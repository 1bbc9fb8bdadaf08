"""A pytest plugin: the report lists the laws that could not be shown, with what was missing.

Switched on with `pytest_plugins = ["catga.testing.report"]` in the conftest at the root. It has no
entry point of its own: pytest would import all of Catga wherever the core is installed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from catga.testing.harness import Harness

__all__ = ["pytest_runtest_call", "pytest_terminal_summary"]

_PROPERTY = "catga: not shown"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """After a law ran, keep why it was not shown; properties also travel between processes."""
    yield
    harness, name = getattr(item, "funcargs", {}).get("harness"), getattr(item, "originalname", "")
    if isinstance(harness, Harness) and name in harness.not_shown:
        item.user_properties.append((_PROPERTY, harness.not_shown[name]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List each law that was not shown."""
    lines = [
        f"{report.nodeid}: needs {value}"
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == _PROPERTY
    ]
    if lines:
        terminalreporter.section(f"{len(lines)} laws not shown")
        for line in lines:
            terminalreporter.line(line)
