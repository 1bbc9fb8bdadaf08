"""`catga dead-letters` against real brokers, as a program of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from bus.bus_kit import PASSWORD, Order, Place, eventually, run
from catga import Bus

SECONDS = 60.0


async def catga(command: str, *words: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "catga", "dead-letters", command, *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    return process.returncode or 0, out.decode(), errors.decode()


def failing(place: Place, failures: set[int], group: str) -> tuple[Bus, list[int]]:
    """Return a bus whose handler fails on these numbers, and what it was given."""
    bus, heard = place.bus(group=group, settings={"attempts": 1}), list[int]()

    @bus.handle(Order)
    async def handle(order: Order) -> None:
        heard.append(order.number)
        if order.number in failures:
            raise ValueError(f"cannot take {order.number}")

    return bus, heard


def test_the_program_brings_letters_back_to_the_group_that_failed(brokered: Place) -> None:
    async def law() -> None:
        where = (brokered.url, "--namespace", brokered.namespace)
        failures = {2, 4}
        bus, heard = failing(brokered, failures, "fails")
        other, untouched = failing(brokered, set(), "other")

        async def letters(*words: str) -> Any:
            status, out, errors = await catga("list", *where, "--json", *words)
            assert (status, errors) == (0, "")
            return json.loads(out)

        async with bus, other:
            assert await letters() == []
            await asyncio.gather(*(bus.publish(Order(number)) for number in range(5)))
            await eventually(lambda: bus.counts()["fails/Order"].get("dead-letter") == 2)
            await eventually(lambda: len(untouched) == 5)
            found = sorted(await letters(), key=lambda each: str(each["error"]))
            assert [each["error"] for each in found] == [
                *("ValueError: cannot take 2", "ValueError: cannot take 4")
            ]
            assert await letters("--id", found[0]["id"]) == found[:1]
            status, out, _ = await catga("show", *where, "--id", found[1]["message_id"])
            assert (status, "raise ValueError" in out, '"number": 4' in out) == (0, True, True)
            status, _, errors = await catga("replay", *where, "--all")
            assert (status, "--yes" in errors) == (2, True)
            failures.remove(2)
            status, out, errors = await catga("replay", *where, "--all", "--yes", "--rate", "50")
            assert (status, errors) == (0, "")
            assert out == "2 of 2 dead letters replayed\n"
            await eventually(lambda: bus.counts()["fails/Order"].get("dead-letter") == 3)
            await eventually(lambda: len(heard) == 7)
            (left,) = await letters()
            assert (left["replays"], left["message_id"]) == (1, found[1]["message_id"])
            status, out, _ = await catga("purge", *where, "--all", "--yes", "--json")
            assert (status, json.loads(out)["done"]) == (0, 1)
            assert await letters() == []
        assert sorted(heard) == [0, 1, 2, 2, 3, 4, 4]
        assert sorted(untouched) == [0, 1, 2, 3, 4]
        status, out, _ = await catga("replay", *where, "--all", "--yes")
        assert (status, out) == (0, "0 of 0 dead letters replayed\n")

    run(law, SECONDS)


def test_the_program_keeps_a_password_to_itself(brokered: Place) -> None:
    async def law() -> None:
        with brokered.flavour.guarded_server() as server:
            url = server.url.replace(PASSWORD, "wrong-word")
            status, out, errors = await catga("list", url)
            assert status == 1
            assert "wrong-word" not in out + errors
            assert errors.startswith("error: ")
            assert errors.count("\n") == 1
            status, out, errors = await catga("list", server.url)
            assert (status, errors) == (0, "")
            assert PASSWORD not in out

    run(law, SECONDS)
