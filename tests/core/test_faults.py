"""The fault proxy and the child process, each verb against a server that echoes."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import pytest

from catga.errors import ConfigurationError
from catga.testing.faults import ChildProcess, FaultProxy
from core import fault_kit


@attrs.define
class Bench:
    """An echo server behind a proxy, and what reached the server."""

    proxy: FaultProxy = attrs.field(factory=lambda: FaultProxy(0))
    received: bytearray = attrs.field(factory=bytearray)
    changed: asyncio.Condition = attrs.field(factory=asyncio.Condition)
    ends: int = 0
    clients: list[asyncio.StreamWriter] = attrs.field(factory=list)

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.received += data
                writer.write(data)
                await writer.drain()
                async with self.changed:
                    self.changed.notify_all()
        except OSError:
            pass
        self.ends += 1
        writer.close()
        async with self.changed:
            self.changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(condition)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        link = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        self.clients.append(link[1])
        return link

    async def linked(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A link through which a byte has gone both ways."""
        reader, writer = await self.connect()
        writer.write(b".")
        assert await reader.readexactly(1) == b"."
        self.received.clear()
        return reader, writer


def run(law: Callable[[Bench], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10), bench() as here:
            await law(here)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    asyncio.run(bounded())


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    here = Bench()
    server = await asyncio.start_server(here.echo, "127.0.0.1", 0)
    here.proxy.target = server.sockets[0].getsockname()[1]
    async with server, here.proxy as proxy:
        yield here
        for writer in here.clients:
            writer.close()
        await proxy.close()
        await here.until(lambda: here.ends == proxy.counts.links)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while True:
            if condition():
                return
            await asyncio.sleep(0)


async def broken(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(1), 5) == b""
    except ConnectionResetError:
        return True


async def silent(reader: asyncio.StreamReader, seconds: float = 0.1) -> bool:
    try:
        await asyncio.wait_for(reader.read(1), seconds)
    except TimeoutError:
        return True
    return False


def test_everything_passes_both_ways_and_is_counted() -> None:
    async def law(here: Bench) -> None:
        reader, writer = await here.connect()
        body = bytes(range(256)) * 4096
        writer.write(body)
        assert await reader.readexactly(len(body)) == body
        assert here.received == body
        writer.write_eof()
        assert await reader.read() == b""
        counts = here.proxy.counts
        assert (counts.links, counts.refused, counts.cut, counts.dropped_bytes) == (1, 0, 0, 0)
        assert counts.client_writes > 0
        assert counts.server_writes > 0

    run(law)


def test_cut_breaks_every_link_and_lets_new_ones_in() -> None:
    async def law(here: Bench) -> None:
        links = [await here.linked() for _ in range(3)]
        here.proxy.cut()
        assert [await broken(reader) for reader, _ in links] == [True] * 3
        assert here.proxy.counts.cut == 3
        await here.linked()

    run(law)


def test_refuse_resets_newcomers_only() -> None:
    async def law(here: Bench) -> None:
        reader, writer = await here.linked()
        here.proxy.refuse()
        newcomer, _ = await here.connect()
        assert await broken(newcomer)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        assert here.proxy.counts.refused == 1
        here.proxy.refuse(False)
        await here.linked()

    run(law)


def test_a_server_that_is_not_there_counts_as_refused() -> None:
    async def law(here: Bench) -> None:
        here.proxy.target = 1
        reader, _ = await here.connect()
        assert await broken(reader)
        assert here.proxy.counts.refused == 1

    run(law)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_delay_lets_everything_arrive_late_and_in_order(direction: str) -> None:
    async def law(here: Bench) -> None:
        reader, writer = await here.linked()
        here.proxy.delay(**{direction: 0.05})
        start = time.monotonic()
        for each in (b"a", b"b", b"c"):
            writer.write(each)
            await writer.drain()
        assert await reader.readexactly(3) == b"abc"
        assert time.monotonic() - start >= 0.05

    run(law)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_black_hole_swallows_and_healing_cuts_what_lost_bytes(direction: str) -> None:
    async def law(here: Bench) -> None:
        reader, writer = await here.linked()
        spared, spared_writer = await here.linked()
        here.proxy.black_hole(up=direction == "up", down=direction == "down")
        writer.write(b"lost")
        if direction == "down":
            await here.until(lambda: here.received == b"lost")
        assert await silent(reader)
        assert bytes(here.received) == (b"" if direction == "up" else b"lost")
        assert here.proxy.counts.dropped_bytes == 4
        here.proxy.heal()
        assert await broken(reader)
        spared_writer.write(b"x")
        assert await spared.readexactly(1) == b"x"

    run(law)


def test_what_was_stalled_arrives_after_healing_even_when_the_client_has_gone() -> None:
    async def law(here: Bench) -> None:
        _, writer = await here.linked()
        here.proxy.stall()
        writer.write(b"late")
        writes = here.proxy.counts.client_writes
        await eventually(lambda: here.proxy.counts.client_writes > writes)
        writer.transport.abort()
        assert here.received == b""
        here.proxy.heal()
        await here.until(lambda: here.received == b"late")

    run(law)


def test_half_closing_up_ends_the_server_s_side_and_answers_still_come() -> None:
    async def law(here: Bench) -> None:
        reader, writer = await here.linked()
        here.proxy.delay(down=0.05)
        writer.write(b"last")
        await here.until(lambda: here.received == b"last")
        here.proxy.half_close()
        assert await reader.read() == b"last"
        assert here.ends == 1

    run(law)


def test_half_closing_down_ends_the_client_s_side_and_the_server_still_hears() -> None:
    async def law(here: Bench) -> None:
        reader, writer = await here.linked()
        here.proxy.half_close(up=False, down=True)
        assert await reader.read() == b""
        writer.write(b"heard")
        await here.until(lambda: here.received == b"heard")

    run(law)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_kth_write_is_cut_before_or_after_the_server_got_it(k: int, when: str) -> None:
    async def law(here: Bench) -> None:
        reader, writer = await here.linked()
        sprung = here.proxy.cut_at_write(k, when)  # type: ignore[arg-type]  # a parameter
        for number in range(1, k):
            writer.write(b"%d" % number)
            assert await reader.readexactly(1) == b"%d" % number
        assert not sprung.is_set()
        writer.write(b"%d" % k)
        assert await broken(reader), "the reply is swallowed"
        assert sprung.is_set()
        await here.until(lambda: here.ends == 1)
        expected = b"".join(b"%d" % number for number in range(1, k + (when == "after")))
        assert here.received == expected
        assert here.proxy.counts.cut == 1
        await here.linked()

    run(law)


def test_a_lost_reply_was_given_by_the_server_and_never_arrives() -> None:
    async def law(here: Bench) -> None:
        reader, writer = await here.linked()
        sprung = here.proxy.lose_reply(b"needle")
        writer.write(b"hay")
        assert await reader.readexactly(3) == b"hay"
        writer.write(b"hay nee")
        assert await reader.readexactly(7) == b"hay nee"
        assert not sprung.is_set()
        writer.write(b"dle hay")
        assert await broken(reader)
        assert here.received == b"hayhay needle hay"
        assert sprung.is_set()

    run(law)


def test_healing_disarms_a_trap() -> None:
    async def law(here: Bench) -> None:
        reader, writer = await here.linked()
        here.proxy.cut_at_write(1)
        here.proxy.heal()
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"

    run(law)


@pytest.mark.parametrize("needle", [b"", bytes(257)])
def test_traps_that_cannot_spring_are_refused(needle: bytes) -> None:
    async def law(here: Bench) -> None:
        with pytest.raises(ValueError, match="needle"):
            here.proxy.lose_reply(needle)
        with pytest.raises(ValueError, match="0-th"):
            here.proxy.cut_at_write(0)

    run(law)


# -- child processes ----------------------------------------------------------------------------


@pytest.mark.parametrize("function", [fault_kit.count, fault_kit.count_in_a_loop])
def test_a_child_dies_at_the_named_point_and_not_before(function: Callable[[int], object]) -> None:
    async def law() -> None:
        async with ChildProcess.of(function, 5, die_at="after", passes=2) as child:
            assert await child.line("before") == "before"
            assert await child.wait() == -signal.SIGKILL
            assert child.lines == ["before", "after", "before", "after"]

    asyncio.run(law())


def test_a_child_that_is_not_told_to_die_ends_by_itself() -> None:
    async def law() -> None:
        async with ChildProcess.of("core.fault_kit:count", 2) as child:
            assert await child.wait() == 0
            assert child.lines == ["before", "after", "before", "after"]

    asyncio.run(law())


def test_a_child_that_fails_is_quoted() -> None:
    async def law() -> None:
        async with ChildProcess("-c", "raise SystemExit('no luck')") as child:
            with pytest.raises(ConfigurationError, match="no luck"):
                await child.line("ready")
            assert await child.wait() == 1

    asyncio.run(law())


def test_no_child_is_left_behind() -> None:
    async def law() -> None:
        async with ChildProcess.of(fault_kit.wait_for_ever) as child:
            await child.line("waiting")
            process = child.running
        assert process.returncode == -signal.SIGKILL

    asyncio.run(law())


def test_a_child_ends_when_its_parent_has_gone() -> None:
    async def law() -> None:
        async with ChildProcess.of(fault_kit.wait_for_ever) as child:
            await child.line("waiting")
            stdin = child.running.stdin
            assert stdin is not None
            stdin.close()
            assert await child.wait() == 1

    asyncio.run(law())


def test_a_function_without_a_module_of_its_own_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="top of a module"):
        ChildProcess.of(lambda: None)
