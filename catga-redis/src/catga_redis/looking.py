"""What a transport asks its servers when it opens."""

from __future__ import annotations

from contextlib import suppress

from redis.exceptions import BusyLoadingError

from catga.errors import AuthenticationError, CapabilityError
from catga_redis.checks import check_server
from catga_redis.errors import REPLY_ERRORS
from catga_redis.session import Session
from catga_redis.wire import Wire, pack_command

__all__ = ["look_at"]

_LOADING_PAUSE = 0.05


async def look_at(session: Session) -> str:
    """Check the kind and version of every server, and learn its limits, once it has loaded.

    Returns its name and version, those of the first. The caller bounds the time. Raises
    `CapabilityError` or `AuthenticationError`.
    """
    limits: list[int] = []
    names = [await _look_at_one(session, wire, limits) for wire in session.servers.wires]
    if limits:  # not permitted to ask: the usual one is assumed
        session.bulk_limit = min(limits)
    return names[0]


async def _look_at_one(session: Session, wire: Wire, limits: list[int]) -> str:
    try:
        hello = await wire.call(b"HELLO")
    except REPLY_ERRORS as error:
        failure = session.failure(error)
        if isinstance(failure, AuthenticationError):
            raise failure from error
        raise CapabilityError(
            f"{session.where} does not know HELLO: Catga needs Redis >= 7.0 or Valkey >= 8.0"
        ) from error
    words = {
        name.decode(): value.decode()
        for name, value in zip(hello[::2], hello[1::2], strict=True)
        if isinstance(value, bytes)
    }
    check_server(words, session.where, cluster=session.servers.sharded)
    while isinstance((await wire.request(pack_command((b"PING",))))[0], BusyLoadingError):
        await session.runtime.clock.sleep(_LOADING_PAUSE)
    with suppress(*REPLY_ERRORS):
        answer = await wire.call(b"CONFIG", b"GET", b"proto-max-bulk-len")
        if answer:
            limits.append(int(answer[1]))
    return f"{words.get('server', 'redis')} {words.get('version', '')}".rstrip()
