"""`catga verify` on a real server: what it says, and that it leaves the server as it was."""

from __future__ import annotations

import asyncio

import nats
from catga_nats.testing import NatsServer
from core.verify_kit import interrupt, verified


def streams(server: NatsServer) -> set[str]:
    """Ask the client itself for every stream there is."""

    async def ask() -> set[str]:
        client = await nats.connect(server.url)
        try:
            return {info.config.name or "" for info in await client.jetstream().streams_info()}
        finally:
            await client.close()

    return asyncio.run(ask())


def test_the_contract_is_kept_and_nothing_is_left(server: NatsServer) -> None:
    before = streams(server)
    certificate = verified(server.url, "poison", "completion", "addressing")
    assert certificate["versions"]["server"].startswith("nats-server 2.")
    assert certificate["versions"]["transport"].startswith("catga-nats ")
    assert streams(server) == before


def test_after_ctrl_c_nothing_is_left(server: NatsServer) -> None:
    before = streams(server)
    interrupt(server.url, "lease", lambda: streams(server) - before)
    assert streams(server) == before
