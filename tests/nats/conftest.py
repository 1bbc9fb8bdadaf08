from __future__ import annotations

from collections.abc import Iterator

import pytest
from nats_kit import server_binaries

from catga_nats.testing import NatsServer


@pytest.fixture(scope="session", params=list(server_binaries().items()), ids=lambda pair: pair[0])
def binary(request: pytest.FixtureRequest) -> str | None:
    path: str | None = request.param[1]
    return path


@pytest.fixture(scope="session")
def server(binary: str | None) -> Iterator[NatsServer]:
    """One server for all that leave it as it was."""
    with NatsServer(binary) as running:
        yield running
