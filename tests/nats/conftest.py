from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# This folder bears the name of the client library, so it cannot be imported as a package.
sys.path.append(str(Path(__file__).parent))

from nats_kit import server_binaries

from catga_nats.testing import NatsServer


@pytest.fixture(scope="session", params=list(server_binaries().items()), ids=lambda pair: pair[0])
def binary(request: pytest.FixtureRequest) -> str | None:
    return request.param[1]


@pytest.fixture(scope="session")
def server(binary: str | None) -> Iterator[NatsServer]:
    """One server for all that leave it as it was."""
    with NatsServer(binary) as running:
        yield running
