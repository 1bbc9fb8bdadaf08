"""Storing by a script: its words become results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from catga.errors import CatgaError
from catga.spi import Outgoing, PublishResult, Receipt
from catga_redis.errors import REPLY_ERRORS, refused, unconfirmed
from catga_redis.scripts import Script
from catga_redis.session import Session

__all__ = ["store_by"]


async def store_by(
    script: Script,
    session: Session,
    keys: Sequence[bytes],
    values: Sequence[Any],
    outs: Sequence[Outgoing],
) -> list[PublishResult]:
    """Run a script that answers `+id`, `=id` or `!error` for each; never raises for the batch."""
    try:
        replies = await script.run(session.line(keys[0]), keys, values)
    except REPLY_ERRORS as error:
        return [refused(error, session.where)] * len(outs)
    except CatgaError as error:
        return [unconfirmed(error)] * len(outs)
    return [_result(session, out, reply) for out, reply in zip(outs, replies, strict=True)]


def _result(session: Session, out: Outgoing, reply: bytes) -> PublishResult:
    word = reply.decode(errors="backslashreplace")
    if word[0] == "!":
        return refused(ResponseError(word[1:]), session.where)
    return Receipt(out.message_id, word[1:], duplicate=word[0] == "=")
