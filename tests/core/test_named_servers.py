"""Which servers a test run is asked to use."""

from __future__ import annotations

import pytest

from catga import ConfigurationError
from catga.testing import named_servers

VARIABLE = "CATGA_TEST_SOME_SERVERS"


def test_servers_are_named_by_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "2.15=/opt/new,2.10=/opt/old=er,")
    assert named_servers(VARIABLE) == {"2.15": "/opt/new", "2.10": "/opt/old=er"}


@pytest.mark.parametrize("value", [None, ""])
def test_without_names_the_one_that_is_installed_is_used(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    assert named_servers(VARIABLE) == {"installed": None}


@pytest.mark.parametrize("value", ["/opt/new", "2.15=", "=/opt/new", "1=/a,1=/b"])
def test_what_names_no_server_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ConfigurationError, match=VARIABLE):
        named_servers(VARIABLE)
