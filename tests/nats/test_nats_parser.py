"""Reading the server's words: however they are cut, as the client's own parser reads them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from catga_nats.parser import Message, OnePassParser

_WORD = st.sampled_from([b"a", b"$JS.ACK.s.c.1.2.3.4.0", b"catga.log.T.0", "größe".encode()])
_BODY = st.sampled_from([b"", b"x", b"z", b"\r\n", b"MSG a 1 2\r\nhi\r\n", b"+OK\r\n", b"y" * 5000])
_HEAD = st.sampled_from([b"NATS/1.0\r\n\r\n", b"NATS/1.0 404 No Messages\r\n\r\n"])
_OTHER = st.sampled_from([b"+OK\r\n", b"PING\r\n", b"PONG\r\n", b'INFO {"a": 1}\r\n'])


def _message(subject: bytes, sid: int, reply: bytes, body: bytes) -> bytes:
    words = [b"MSG", subject, b"%d" % sid, *([reply] if reply else []), b"%d" % len(body)]
    return b" ".join(words) + b"\r\n" + body + b"\r\n"


def _headed(subject: bytes, sid: int, reply: bytes, head: bytes, body: bytes) -> bytes:
    sizes = [b"%d" % len(head), b"%d" % len(head + body)]
    words = [b"HMSG", subject, b"%d" % sid, *([reply] if reply else []), *sizes]
    return b" ".join(words) + b"\r\n" + head + body + b"\r\n"


_SIDS = st.integers(1, 3)  # so that lines are often the same as the one before
_REPLY = st.one_of(st.just(b""), _WORD)
_SAID = st.one_of(
    st.builds(_message, _WORD, _SIDS, _REPLY, _BODY),
    st.builds(_headed, _WORD, _SIDS, _REPLY, _HEAD, _BODY),
    _OTHER,
)


class _Heard:
    """A client that notes what it is told."""

    def __init__(self) -> None:
        self.words: list[tuple[Any, ...]] = []

    async def hand_over(self, sid: int, run: Sequence[Message]) -> None:
        assert run
        self.words += [(sid, each.subject, each.reply, each.data, each.head) for each in run]

    async def _process_msg(self, *message: Any) -> None:
        self.words.append((*message[:-1], message[-1] or b""))

    async def _process_ping(self) -> None:
        self.words.append(("ping",))

    async def _process_pong(self) -> None:
        self.words.append(("pong",))

    async def _process_info(self, info: Any) -> None:
        self.words.append((info["a"],))


async def _hear(make: type[Parser], said: bytes, cuts: list[int]) -> list[tuple[Any, ...]]:
    heard = _Heard()
    parser = make(heard)
    places = sorted({0, len(said), *(cut % (len(said) + 1) for cut in cuts)})
    for start, stop in itertools.pairwise(places):
        await parser.parse(said[start:stop])
    return heard.words


@given(st.lists(_SAID, max_size=8), st.lists(st.integers(0, 10**6), max_size=12))
def test_it_hears_what_the_clients_own_parser_hears(said: list[bytes], cuts: list[int]) -> None:
    async def law() -> None:
        whole = b"".join(said)
        assert await _hear(OnePassParser, whole, cuts) == await _hear(Parser, whole, [])

    asyncio.run(law())


@given(st.integers(2, 6))
def test_messages_to_one_subscription_come_together_and_in_order(count: int) -> None:
    async def law() -> None:
        runs: list[tuple[int, int]] = []

        class Counts(_Heard):
            async def hand_over(self, sid: int, run: Sequence[Message]) -> None:
                runs.append((sid, len(run)))

        one, other = _message(b"a", 1, b"", b"x"), _headed(b"a", 2, b"", b"NATS/1.0\r\n\r\n", b"x")
        await OnePassParser(Counts()).parse(one * count + other * count + one + b"PING\r\n" + one)
        assert runs == [(1, count), (2, count), (1, 1), (1, 1)]

    asyncio.run(law())


_NONSENSE = (
    b"NONSENSE\r\n",
    b"\r\n",
    b"MSG a\r\n",
    b"MSG a b 3\r\n",
    b"MSG a 1 x\r\n",
    b"MSG a 1 r r 3\r\n",
    b"HMSG\r\n",
    b"HMSG a 1 x 3\r\n",
    b"HMSG a 1 3\r\n",
)


@pytest.mark.parametrize("nonsense", _NONSENSE)
def test_what_no_server_says_is_an_error(nonsense: bytes) -> None:
    with pytest.raises(ProtocolError):
        asyncio.run(_hear(OnePassParser, nonsense, []))


@pytest.mark.parametrize("nonsense", _NONSENSE)
def test_what_came_before_nonsense_is_handed_over(nonsense: bytes) -> None:
    async def law() -> None:
        heard = _Heard()
        with pytest.raises(ProtocolError):
            await OnePassParser(heard).parse(_message(b"a", 1, b"", b"x") + nonsense)
        assert heard.words == [(1, b"a", b"", b"x", b"")]

    asyncio.run(law())


def test_a_new_connection_begins_anew() -> None:
    async def law() -> None:
        heard = _Heard()
        parser = OnePassParser(heard)
        await parser.parse(b"MSG a 1 5000\r\nhalf of")
        parser.reset()
        await parser.parse(b"PING\r\n")
        assert heard.words == [("ping",)]

    asyncio.run(law())
