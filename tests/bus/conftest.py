"""A place for each law: every transport, every server, a namespace nobody used before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bus.bus_kit import Flavour, Place, Servers, fresh_namespace
from catga.testing import named_servers

FLAVOURS = [
    Flavour("inmemory"),
    *(
        Flavour(kind, version, path)
        for kind in ("nats", "redis")
        for version, path in named_servers(f"CATGA_TEST_{kind.upper()}_SERVERS").items()
    ),
]
KINDS = {
    "place": {"inmemory", "nats", "redis"},
    "brokered": {"nats", "redis"},
    "nats": {"nats"},
    "redis": {"redis"},
}
"""Which transports a test concerns, by the fixture it asks for."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    asked = [kinds for name, kinds in KINDS.items() if name in metafunc.fixturenames]
    if asked:
        wanted = [each for each in FLAVOURS if each.kind in set.intersection(*asked)]
        metafunc.parametrize("flavour", wanted, ids=str)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    running = Servers()
    yield running
    running.stop()


@pytest.fixture
def place(flavour: Flavour, servers: Servers) -> Place:
    return Place(flavour, servers.shared(flavour), fresh_namespace())


@pytest.fixture
def brokered(place: Place) -> Place:
    return place


@pytest.fixture
def nats(place: Place) -> Place:
    return place


@pytest.fixture
def redis(place: Place) -> Place:
    return place
