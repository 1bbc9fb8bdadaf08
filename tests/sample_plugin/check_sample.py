"""What a third party may rely on; run by `nox -s sample_plugin`, where the wheel is installed."""

from __future__ import annotations

import ast
import asyncio
import functools
import importlib.metadata
import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from catga_sample import queues
from catga_sample.plugin import CAPABILITIES

from catga import Bus, Context, QualityOfService
from catga.errors import (
    ConfigurationError,
    ConnectionLost,
    NoResponders,
)
from catga.plugins import installed_catalog
from sample_plugin.sample_kit import (
    Double,
    Noticed,
    Paid,
    Stored,
    bus_on,
    count,
    enter,
    eventually,
    keep,
    run,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "messages.db"


# ---- the plugin


def test_the_wheel_is_installed_and_found_by_its_entry_point() -> None:
    distribution = importlib.metadata.distribution("catga-sqlite-sample")
    assert "site-packages" in str(distribution.locate_file(""))
    catalog = installed_catalog()
    assert catalog.problems == ()
    assert catalog.transport_for("sample").name == "sample"


def test_its_module_imports_nothing_heavy_and_the_program_lists_it() -> None:
    program = "import catga_sample.plugin, sys; sys.exit('sqlite3' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
    command = [sys.executable, "-m", "catga", "plugins", "--json"]
    shown = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    (plugin,) = shown["plugins"]
    named = (plugin["name"], plugin["distribution"], plugin["version"])
    assert named == ("sample", "catga-sqlite-sample", "1.0.0")
    assert set(plugin["transports"][0]["capabilities"]) == CAPABILITIES


def test_the_page_points_at_what_is_there() -> None:
    page = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    pointed = re.findall(r"`(\w+\.py):(\w+)`", page)
    assert len(pointed) > 10
    for module, name in pointed:
        source = resources.files("catga_sample").joinpath(module).read_text(encoding="utf-8")
        assert re.search(rf"^ *((async )?def|class) {name}\b|^{name} = ", source, re.MULTILINE), (
            name
        )


def test_it_has_less_than_400_lines_of_code() -> None:
    assert sum(map(lines_of_code, Path(queues.__file__).parent.glob("*.py"))) < 400


def lines_of_code(path: Path) -> int:
    """Without blank lines, comments and docstrings."""
    text = path.read_text(encoding="utf-8")
    words = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    numbered = enumerate(text.splitlines(), 1)
    return sum(
        number not in words and line.strip(" ")[:1] not in {"", "#"} for number, line in numbered
    )


def test_other_schemes_say_what_to_install() -> None:
    with pytest.raises(ConfigurationError, match=r"known schemes: sample; .*catga-core\[nats\]"):
        installed_catalog().transport_for("nats")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sample:///f.db?fsinc=true", "did you mean 'fsync'"),
        ("sample:///f.db?live_buffer=0", ">="),
        ("sample:///f.db?poll_interval=0s", ">"),
        ("sample://", "sample:///path/to/file.db"),
        ("sample://file.db", "sample:///path/to/file.db"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        run(lambda: enter(Bus(url, service="check")))


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("no database at all" * 100)
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("CREATE TABLE mine (id)")
    for name in ("missing/file.db", "folder", "text", "other.db"):
        with pytest.raises(ConnectionLost, match=name):
            run(functools.partial(enter, bus_on(tmp_path / name)))


# ---- QoS 0


@pytest.mark.parametrize("buses", [1, 2])
def test_at_most_once_reaches_each_listener_and_one_member_of_each_group(
    file: Path, buses: int
) -> None:
    async def law() -> None:
        members = [bus_on(file, group="shared") for _ in range(2)]
        listener = bus_on(file)
        seen = [keep(bus, Noticed) for bus in members]
        heard = keep(listener, Noticed, broadcast=True)
        async with members[0], members[1], listener:
            publisher = (listener, members[0])[buses - 1]
            for number in range(40):
                await publisher.publish(Noticed(number))
            await eventually(lambda: len(heard) == len(seen[0]) + len(seen[1]) == 40)
        assert [number for number, _ in heard] == list(range(40))
        assert all(seen), "both took part"
        assert count(file, "work") == 0

    run(law)


def test_requests_are_answered_and_nobody_is_told_at_once(file: Path) -> None:
    async def law() -> None:
        asking, answering = bus_on(file, service="asking"), bus_on(file, service="answering")

        @answering.handle(Double)
        async def double(request: Double) -> int:
            return request.number * 2

        async with asking:
            zero = QualityOfService.AT_MOST_ONCE
            with pytest.raises(NoResponders):
                await asking.request(Double(1), to="answering", qos=zero)
            async with answering:
                assert await asking.request(Double(2), to="answering") == 4
                assert await asking.request(Double(3), to="answering", qos=zero) == 6

    run(law)


# ---- QoS 1


def test_what_was_published_before_the_first_start_is_delivered_to_every_group(file: Path) -> None:
    async def law() -> None:
        async with bus_on(file) as publisher:
            await publisher.publish(Stored(1))
            await publisher.send(Stored(2), to="one")
        buses = [bus_on(file, group="one"), bus_on(file, group="two"), bus_on(file, group="new")]
        starts = ["beginning", "beginning", "new"]
        one, two, new = (keep(bus, Stored, start=s) for bus, s in zip(buses, starts, strict=True))
        async with buses[0], buses[1], buses[2]:
            await buses[0].publish(Stored(3))
            await eventually(lambda: len(one) == 3 and len(two) == 2 and len(new) == 1)
        assert sorted(one) == [(1, 1), (2, 1), (3, 1)]
        assert sorted(two) == [(1, 1), (3, 1)]
        assert new == [(3, 1)]
        assert count(file, "work") == 0, "all is settled"

    run(law)


def test_a_failing_handler_is_tried_again_then_parked(file: Path) -> None:
    async def law() -> None:
        bus = bus_on(file, {"attempts": 3})
        attempts: list[int] = []

        @bus.handle(Stored)
        async def fail(event: Stored, context: Context) -> None:
            attempts.append(context.attempt)
            raise LookupError

        async with bus:
            await bus.publish(Stored(1))
            await eventually(lambda: bus.counts()["check/Stored"].get("dead-letter"))
        assert attempts == [1, 2, 3]
        with sqlite3.connect(file) as db:
            texts = [text for (text,) in db.execute("SELECT subject FROM entry ORDER BY sequence")]
        assert texts == ["catga.log.Stored.0", "catga.dead.check.Stored"]
        assert count(file, "work") == 0

    run(law)


def test_drain_gives_back_what_has_not_begun(file: Path) -> None:
    async def law() -> None:
        first, second = bus_on(file), bus_on(file)
        begun, goes_on = asyncio.Event(), asyncio.Event()

        @first.handle(Stored, concurrency=1)
        async def slow(event: Stored) -> None:
            begun.set()
            await goes_on.wait()

        async with first:
            await first.publish_many(Stored(number) for number in range(5))
            await begun.wait()
            draining = asyncio.create_task(first.drain())
            await eventually(lambda: count(file, "work WHERE owner = ''") == 4)
            goes_on.set()
            drained = await draining
        assert (drained.handled, drained.returned, drained.abandoned) == (1, 4, 0)
        seen = keep(second, Stored)
        async with second:
            await eventually(lambda: len(seen) == 4)

    run(law)


def test_broadcast_listeners_each_see_what_is_new(file: Path) -> None:
    async def law() -> None:
        bus = bus_on(file)
        one, two = keep(bus, Stored, broadcast=True), keep(bus, Stored, broadcast=True)
        async with bus_on(file) as publisher:
            await publisher.publish(Stored(1))
            async with bus:
                await publisher.publish(Stored(2))
                await eventually(lambda: one == two == [(2, 1)])

    run(law)


WORKER = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from sample_plugin import sample_kit as check

async def main():
    bus = check.bus_on(sys.argv[1], {"lease": 0.5})

    @bus.handle(check.Stored)
    async def hang(event):
        print("begun", flush=True)
        await asyncio.Event().wait()

    async with bus:
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def worker(file: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WORKER, str(file), str(Path(__file__).parents[1])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_what_a_killed_process_had_in_hand_is_taken_over(
    file: Path, worker: subprocess.Popen[str]
) -> None:
    async def law() -> None:
        async with bus_on(file) as publisher:
            await publisher.publish(Stored(1))
        assert worker.stdout is not None
        assert await asyncio.to_thread(worker.stdout.readline) == "begun\n"
        heir = bus_on(file, {"lease": 0.5})
        seen = keep(heir, Stored)
        async with heir:
            await asyncio.sleep(1)
            assert seen == [], "while its owner lives it stays its owner's"
            worker.send_signal(signal.SIGKILL)
            await eventually(lambda: seen)
        assert seen == [(1, 2)]

    run(law)


# ---- QoS 2


def test_one_id_is_stored_once_and_one_completion_is_not_repeated(file: Path) -> None:
    async def law() -> None:
        bus = bus_on(file)
        seen = keep(bus, Paid)
        async with bus:
            first = await bus.publish(Paid(1), message_id="a")
            again = await bus.publish(Paid(1), message_id="a")
            assert (first.duplicate, again.duplicate) == (False, True)
            assert first.sequence == again.sequence
            await bus.send(Paid(1), to="check", message_id="a")  # another copy of the same message
            await eventually(lambda: bus.counts()["check/Paid"].get("ack") == 2)
        assert seen == [(1, 1)]
        assert count(file, "record") == 1

    run(law)
