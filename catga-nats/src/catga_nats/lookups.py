"""Looking up what was stored last on each of many subjects.

Source: docs.nats.io, "NATS JetStream Wire API", and ADR-31, "JetStream Direct Get" (read for
nats-server 2.10 to 2.15).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from catga.errors import ConnectionLost, TransportError
from catga_nats.connection import Connection
from catga_nats.errors import missing_error
from catga_nats.headers import direct_sequence
from catga_nats.mux import Answer, Ask, Missing, Series

__all__ = ["BATCH_GET", "last_of_all", "read_last"]

BATCH_GET = (2, 11)
"""Several subjects in one request. Source: docs.nats.io, NATS 2.11 release notes."""
_TIMEOUT = 5.0
_TOGETHER = 512
"""Subjects in one request; the server answers with 1024 messages at the most."""
_MOST_BYTES = 4 << 20
"""Of one answer, about: what is beyond is asked for one by one."""
_FRAME_BYTES = 64
_NO_MESSAGE = 10037
"""Error code. Source: nats-server 2.15, `server/errors.json`."""


def read_last(stream: str, subject: str, config: Mapping[str, Any]) -> Ask:
    """Return the request for the last message of a subject.

    With one copy any answer is the truth; with several only the leader surely knows, and a direct
    get may be answered by a follower that is behind.
    """
    if _is_direct(config):
        return f"$JS.API.DIRECT.GET.{stream}.{subject}", b""
    return f"$JS.API.STREAM.MSG.GET.{stream}", msgspec.json.encode({"last_by_subj": subject})


def _is_direct(config: Mapping[str, Any]) -> bool:
    return config.get("num_replicas", 1) == 1 and bool(config.get("allow_direct"))


async def last_of_all(
    connection: Connection,
    wanted: Mapping[str, Sequence[str]],
    streams: Mapping[str, Mapping[str, Any]],
) -> dict[str, bytes]:
    """Return the body of the last message on each subject that has one (`wanted`: the subjects by
    their streams, `streams`: what is known of those). Raises `TransportError`.

    Where the server can: in one request for hundreds of subjects, answered by one message when
    there is nothing on any of them, as almost always; the same look-ups one by one cost a tenfold.
    """
    singly: list[tuple[str, str]] = []
    parts: list[tuple[str, Sequence[str]]] = []
    for stream, subjects in wanted.items():
        if connection.version >= BATCH_GET and _is_direct(streams.get(stream, {})):
            limit = connection.client.max_payload
            parts += [(stream, part) for part in _parts(subjects, limit)]
        else:
            singly += [(stream, subject) for subject in subjects]
    requests = [
        (
            f"$JS.API.DIRECT.GET.{stream}",
            msgspec.json.encode({"multi_last": part, "max_bytes": _MOST_BYTES}),
        )
        for stream, part in parts
    ]
    found: dict[str, bytes] = {}
    for (stream, part), series in zip(
        parts, await connection.mux.read(requests, _TIMEOUT), strict=True
    ):
        for message in series.messages:
            found[(message.headers or {}).get("Nats-Subject", "")] = message.data
        if not _is_complete(series):  # too much for one answer
            singly += [(stream, subject) for subject in part if subject not in found]
    asks = [read_last(stream, subject, streams.get(stream, {})) for stream, subject in singly]
    answers = await connection.mux.ask(asks, _TIMEOUT)
    for (_, subject), answer in zip(singly, answers, strict=True):
        body = _body(answer)
        if body is not None:
            found[subject] = body
    return found


def _parts(subjects: Sequence[str], limit: int) -> Iterator[Sequence[str]]:
    """Split them so that each request stays below the limit of the server, in bytes."""
    longest = max(map(len, subjects)) + len('"",')
    most = max(1, min(_TOGETHER, (limit - _FRAME_BYTES) // longest))
    for start in range(0, len(subjects), most):
        yield subjects[start : start + most]


def _is_complete(series: Series) -> bool:
    """Say whether all that is there has surely come.

    A 2.11 server that ends an answer for its size counts one too few of what is left, so that its
    `Nats-Num-Pending` of 0 proves nothing then (measured with 2.11.11).
    """
    if isinstance(series.end, Missing):
        raise _missing(series.end)
    headers = series.end.headers or {}
    status = headers.get("Status")
    if status == "503":
        raise _unreadable(status)
    size = sum(len(message.data) for message in series.messages)
    pending = headers.get("Nats-Num-Pending")
    return status == "404" or (status == "204" and pending == "0" and size * 2 < _MOST_BYTES)


def _body(answer: Answer) -> bytes | None:
    """Return the body of a message; None: there is none."""
    if isinstance(answer, Missing):
        raise _missing(answer)
    if direct_sequence(answer.head):
        return answer.data  # a direct get hands the record itself out
    status = (answer.headers or {}).get("Status")
    if status == "404":
        return None
    if status is not None:
        raise _unreadable(status)
    reply = msgspec.json.decode(answer.data)
    error = reply.get("error")
    if error and error.get("err_code") != _NO_MESSAGE:
        raise TransportError(f"the completion records cannot be read: {error.get('description')}")
    return None if error else base64.b64decode(reply["message"].get("data", ""))


def _missing(missing: Missing) -> TransportError:
    return missing_error(missing, "looking up a completion record")


def _unreadable(status: str) -> TransportError:
    return ConnectionLost(f"the completion records cannot be read now: status {status}")
