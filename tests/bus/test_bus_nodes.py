"""Nodes in processes of their own: killed, stopped, cut off; and their broker killed."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import attrs
import pytest

from bus.bus_kit import PASSWORD, Place, eventually, run
from bus.nodes_kit import Terminal, be_a_node
from catga import Bus, ChangeKind, Node, NodeChange
from catga.engine.membership import Watch
from catga.testing import ChildProcess, FaultProxy, ServerProcess

SHORT = 3.0
"""Seconds of a lease whose end is awaited; three heartbeats fall into it."""
LONG = 60.0
SECONDS = 100.0
LINE_SECONDS = 30.0
"""A busy machine may take long to start a process."""
IMPATIENT: dict[str, dict[str, object]] = {
    "nats": {"ping_interval": 1.0},
    "redis": {"reply_timeout": 2.0},
}
"""A silence is noticed soon."""


@asynccontextmanager
async def a_node(place: Place, name: str, ttl: float, url: str = "") -> AsyncIterator[ChildProcess]:
    settings = {**IMPATIENT[place.kind], "node_ttl": ttl}
    child = ChildProcess.of(be_a_node, url or place.url, place.namespace, name, settings)
    async with child:
        await child.line("here", LINE_SECONDS)
        yield child


def eye(place: Place, ttl: float = SHORT) -> Bus:
    return place.bus(consume=False, settings={"node_ttl": ttl})


async def hear(watch: Watch, kind: ChangeKind, name: str) -> NodeChange:
    async with asyncio.timeout(LINE_SECONDS):
        async for change in watch:
            assert change.kind is not ChangeKind.UPDATED
            if (change.kind, change.node.id) == (kind, name):
                return change
    raise AssertionError("the watch ended")


async def view_of(child: ChildProcess) -> list[str]:
    child.signal(signal.SIGUSR1)
    return (await child.line("sees", LINE_SECONDS)).split()[1:]


def test_every_process_sees_the_same_nodes(brokered: Place) -> None:
    async def law() -> None:
        async with AsyncExitStack() as stack, eye(brokered) as here:
            children = [
                await stack.enter_async_context(a_node(brokered, f"n-{number}", LONG))
                for number in range(3)
            ]
            views = [await view_of(child) for child in children]
            assert views[0] == views[1] == views[2]
            assert [each.partition("@")[0] for each in views[0]] == ["n-0", "n-1", "n-2"]
            found = await here.discovery.nodes()
            assert [(each.id, each.address) for each in found] == [
                (f"n-{number}", f"n-{number}:80") for number in range(3)
            ]

    run(law, SECONDS)


def test_a_killed_node_is_gone_when_its_lease_ends_and_one_that_leaves_at_once(
    brokered: Place,
) -> None:
    async def law() -> None:
        async with (
            eye(brokered) as here,
            here.discovery.watch() as watch,
            a_node(brokered, "killed", SHORT) as killed,
            a_node(brokered, "leaves", LONG) as leaves,
        ):
            victim = (await hear(watch, ChangeKind.JOINED, "killed")).node
            await hear(watch, ChangeKind.JOINED, "leaves")
            killed.kill()
            await hear(watch, ChangeKind.EXPIRED, "killed")

            async def gone() -> bool:
                return [each.id for each in await here.discovery.nodes()] == ["leaves"]

            await eventually(gone)
            leaves.signal(signal.SIGTERM)
            await hear(watch, ChangeKind.LEFT, "leaves")
            await leaves.line("left", LINE_SECONDS)
            async with a_node(brokered, "killed", SHORT):
                again = await hear(watch, ChangeKind.JOINED, "killed")
                assert again.node.started > victim.started

    run(law, SECONDS)


def test_a_node_that_was_stopped_cannot_take_its_id_back(brokered: Place) -> None:
    async def law() -> None:
        async with (
            eye(brokered) as here,
            here.discovery.watch() as watch,
            a_node(brokered, "one", SHORT) as stopped,
        ):
            first = await hear(watch, ChangeKind.JOINED, "one")
            stopped.signal(signal.SIGSTOP)
            await hear(watch, ChangeKind.EXPIRED, "one")
            heir = brokered.bus(
                consume=False, node=Node(id="one", address="heir"), settings={"node_ttl": LONG}
            )
            async with heir:
                await hear(watch, ChangeKind.JOINED, "one")
                stopped.signal(signal.SIGCONT)
                for _ in range(5):  # it has answered, so it has had its turn
                    (seen,) = await view_of(stopped)
                    assert seen == f"one@{heir.discovery.node.started:%H%M%S%f}"  # type: ignore[union-attr]
                await heir.discovery.heartbeat()
            # The heir has left: now it is the first one's again, and still the same node.
            again = await hear(watch, ChangeKind.JOINED, "one")
            assert again.node.started == first.node.started
            stopped.kill()

    run(law, SECONDS)


@pytest.fixture
def hurt(brokered: Place) -> Iterator[Place]:
    with brokered.flavour.server() as server:
        yield attrs.evolve(brokered, server=server)


async def kill_and_start(server: ServerProcess | None) -> None:
    assert server is not None
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


def test_a_killed_and_restarted_broker_is_nobodys_end(hurt: Place) -> None:
    async def law() -> None:
        async with (
            eye(hurt, LONG) as here,
            here.discovery.watch() as watch,
            a_node(hurt, "one", LONG) as one,
            a_node(hurt, "two", LONG),
        ):
            await hear(watch, ChangeKind.JOINED, "two")
            before = await view_of(one)
            await kill_and_start(hurt.server)
            async with eye(hurt) as newcomer:
                found = await newcomer.discovery.nodes()
                assert [f"{each.id}@{each.started:%H%M%S%f}" for each in found] == before
            async with a_node(hurt, "three", LONG):
                joined = await hear(watch, ChangeKind.JOINED, "three")
                assert joined.node.address == "three:80"
                await eventually(lambda: len(watch.nodes) == 3)

    run(law, SECONDS)


@pytest.mark.parametrize("fault", ["cut", "silence"])
def test_a_node_that_was_cut_off_comes_back_as_itself(brokered: Place, fault: str) -> None:
    async def law() -> None:
        port = urlsplit(brokered.url).port
        assert port is not None
        async with (
            FaultProxy(port) as proxy,
            eye(brokered) as here,
            here.discovery.watch() as watch,
        ):
            url = brokered.url.replace(f":{port}", f":{proxy.port}")
            async with a_node(brokered, "one", SHORT, url) as away:
                first = await hear(watch, ChangeKind.JOINED, "one")
                if fault == "cut":
                    proxy.refuse()
                    proxy.cut()
                else:
                    proxy.black_hole()
                await hear(watch, ChangeKind.EXPIRED, "one")
                proxy.heal()
                again = await hear(watch, ChangeKind.JOINED, "one")
                assert again.node.started == first.node.started
                await eventually(lambda: len(watch.nodes) == 1)
                away.signal(signal.SIGTERM)
                await hear(watch, ChangeKind.LEFT, "one")

    run(law, SECONDS)


# ---- catga nodes


async def catga_nodes(*words: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "catga", "nodes", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    return process.returncode or 0, out.decode(), errors.decode()


def test_the_program_lists_who_is_there(brokered: Place) -> None:
    async def law() -> None:
        where = (brokered.url, "--namespace", brokered.namespace)
        status, out, errors = await catga_nodes(*where)
        assert (status, errors) == (0, "")
        assert out.startswith("no nodes at ")
        described = Node(id="one", address="http://h:1", load=0.5, metadata={"zone": "b"})
        async with brokered.bus(consume=False, node=described):
            status, out, _ = await catga_nodes(*where)
            assert status == 0
            for words in ("tests", "one", "http://h:1", "0.5", "zone=b"):
                assert words in out
            status, out, _ = await catga_nodes(*where, "--json")
            (shown,) = json.loads(out)["nodes"]
            assert status == 0
            assert shown["metadata"] == {"zone": "b"}
            assert {key: shown[key] for key in ("id", "service", "address", "load")} == {
                "id": "one",
                "service": "tests",
                "address": "http://h:1",
                "load": 0.5,
            }

    run(law, SECONDS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_program_watches_until_it_is_told_to_stop(
    brokered: Place, number: signal.Signals
) -> None:
    async def law() -> None:
        words = ("nodes", brokered.url, "--namespace", brokered.namespace, "--watch", "--json")
        told: list[str] = []
        first, later = (brokered.bus(consume=False, node=Node(id=name)) for name in "ab")
        async with first, ChildProcess("-m", "catga", *words) as child:
            told.append(await child.line("{", LINE_SECONDS))
            async with later:
                told.append(await child.line("{", LINE_SECONDS))
            told.append(await child.line("{", LINE_SECONDS))
            child.signal(number)
            assert await child.wait(LINE_SECONDS) == 130
            assert child.errors == ""
        changes = [(each["change"], each["node"]["id"]) for each in map(json.loads, told)]
        assert changes == [("joined", "a"), ("joined", "b"), ("left", "b")]

    run(law, SECONDS)


def test_the_program_shows_a_live_table_where_somebody_looks(hurt: Place) -> None:
    async def law() -> None:
        assert hurt.server is not None
        url = f"{hurt.url}?node_ttl=2s"
        words = [sys.executable, "-m", "catga", "nodes", url, "--namespace", hurt.namespace]
        async with Terminal(*words, "--watch") as terminal:
            await terminal.shows("0 nodes at")
            async with hurt.bus(consume=False, node=Node(id="one", address="http://h:1")):
                await terminal.shows("joined  tests one http://h:1")
                await terminal.shows("1 node at")
            await terminal.shows("left    tests one http://h:1")
            await asyncio.to_thread(hurt.server.kill)
            await terminal.shows("not up to date")
            await asyncio.to_thread(hurt.server.start)
            async with hurt.bus(consume=False, node=Node(id="two")):
                await terminal.shows("joined  tests two")
            assert await terminal.end() == 130

    run(law, SECONDS)


def test_the_program_keeps_a_password_to_itself(brokered: Place) -> None:
    async def law() -> None:
        with brokered.flavour.guarded_server() as server:
            url = server.url.replace(PASSWORD, "wrong-word")
            status, out, errors = await catga_nodes(url)
            assert status == 1
            assert "wrong-word" not in out + errors
            assert errors.startswith("error: ")
            assert errors.count("\n") == 1
            status, out, errors = await catga_nodes(server.url)
            assert (status, errors) == (0, "")
            assert PASSWORD not in out

    run(law, SECONDS)
