from __future__ import annotations

from collections.abc import Iterator

import pytest

from catga.testing import named_servers
from catga_nats.testing import NatsServer

VERSIONS = named_servers("CATGA_TEST_NATS_SERVERS")


@pytest.fixture(scope="session", params=VERSIONS.items(), ids=lambda pair: pair[0])
def binary(request: pytest.FixtureRequest) -> str | None:
    path: str | None = request.param[1]
    return path


@pytest.fixture(scope="session")
def server(binary: str | None) -> Iterator[NatsServer]:
    """One server for all that leave it as it was."""
    with NatsServer(binary) as running:
        yield running
