"""Connecting again: whatever a try meets, there is a next one."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nkeys
import pytest
from nats_kit import Opened, opened, until

from catga.errors import AuthenticationError
from catga.spi import EventKind
from catga.testing import FaultProxy
from catga_nats.testing import NatsServer

SEED = bytes(nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER))
_BAD = {
    "empty": b"",
    "cut short": SEED[:20],
    "of no letters": b"\xff" * 58,
}


@pytest.fixture(scope="module")
def guarded(binary: str | None) -> Iterator[NatsServer]:
    """A server that asks for the signature of a key."""
    public = nkeys.from_seed(bytearray(SEED)).public_key.decode()
    config = f"authorization {{ users: [ {{ nkey: {public} }} ] }}"
    with NatsServer(binary, config=config) as server:
        yield server


async def _is_connected_again(here: Opened) -> None:
    await until(lambda: len(here.told(EventKind.CONNECTED)) == 2)
    assert (await here.transport.health()).ok


@pytest.mark.parametrize("bad", _BAD.values(), ids=_BAD)
def test_a_seed_that_cannot_be_used_for_a_while_ends_no_reconnecting(
    guarded: NatsServer, tmp_path: Path, bad: bytes
) -> None:
    """Who changes the file in place writes it in two steps."""
    path = tmp_path / "seed"
    path.write_bytes(SEED)

    async def law() -> None:
        async with opened(guarded.url, nkey_seed_file=str(path)) as here:
            path.write_bytes(bad)
            here.client.abort()
            await until(lambda: any("credentials" in each for each in here.told(EventKind.TROUBLE)))
            path.write_bytes(SEED)
            await _is_connected_again(here)
            assert SEED.decode() not in repr(here.events)

    asyncio.run(law())


@pytest.mark.parametrize("name", ["credentials_file", "nkey_seed_file"])
@pytest.mark.parametrize("bad", _BAD.values(), ids=_BAD)
def test_a_file_of_credentials_that_cannot_be_used_is_refused_at_once(
    guarded: NatsServer, tmp_path: Path, name: str, bad: bytes
) -> None:
    """One without a JWT was read on and on at its end, and the loop stood still."""
    path = tmp_path / "secret"
    marked = b"-----BEGIN USER NKEY SEED-----\n%b\n" % SEED

    async def law(settings: Any) -> None:
        async with opened(guarded.url, **settings):
            pass

    for content in (bad, *([marked + bad] if name == "credentials_file" else [])):
        path.write_bytes(content)
        start = time.monotonic()
        with pytest.raises(AuthenticationError) as caught:
            asyncio.run(law({name: str(path)}))
        assert time.monotonic() - start < 2
        assert SEED.decode() not in repr(caught.value)


def test_two_errors_at_once_do_not_close_the_client_for_good(server: NatsServer) -> None:
    async def law() -> None:
        async with opened(server.url) as here:
            await here.client._ps.parse(b"-ERR 'one thing'\r\n-ERR 'and another'\r\n")
            await _is_connected_again(here)

    asyncio.run(law())


def test_who_greets_in_another_way_ends_no_reconnecting(server: NatsServer) -> None:
    greeted = asyncio.Event()

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO\r\n")
        await writer.drain()
        writer.close()
        greeted.set()

    async def law() -> None:
        stranger = await asyncio.start_server(greet, "127.0.0.1", 0)
        async with (
            FaultProxy(server.port) as proxy,
            stranger,
            opened(f"nats://127.0.0.1:{proxy.port}") as here,
        ):
            proxy.target = stranger.sockets[0].getsockname()[1]
            proxy.cut()
            await asyncio.wait_for(greeted.wait(), 5)
            proxy.target = server.port
            await _is_connected_again(here)

    asyncio.run(law())
