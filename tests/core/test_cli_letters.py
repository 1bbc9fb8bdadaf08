"""`catga dead-letters`: what it finds, shows and asks, over a broker in this process."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from catga.cli import dead_letters as commands
from catga.cli import main, moving
from catga.engine.deadletters import DeadLetter
from catga.ground.clock import SystemClock
from catga.spi import Kind, Source, Subject
from catga_inmemory.broker import MemoryBroker, acquire, release
from catga_inmemory.deadletters import MemoryDeadLetters
from catga_inmemory.transport import MemoryTransport

URL = "inmemory://letters"
NOW = datetime(2026, 1, 10, tzinfo=UTC)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryBroker]:
    """A broker in memory that the program takes for one somewhere else."""
    catalog = SimpleNamespace(transport_for=lambda _: SimpleNamespace(in_process=False))
    monkeypatch.setattr(commands, "installed_catalog", lambda: catalog)
    made = acquire("letters", SystemClock())
    yield made
    release("letters", made)


def invoke(command: str, *words: str, text: str = "") -> Result:
    return CliRunner().invoke(main, ["dead-letters", command, URL, *words], input=text)


def letter(number: int, **changes: Any) -> DeadLetter:
    event = {
        "specversion": "1.0",
        "id": f"m-{number}",
        "type": "Order",
        "source": "s",
        "data": {"number": number, "city": "Zürich"},
    }
    given: dict[str, Any] = {
        "message_id": f"m-{number}",
        "cause": "attempts exhausted",
        "error": f"ValueError: number {number}",
        "traceback": "Traceback (most recent call last):\n  in the handler",
        "attempts": 5,
        "parked_at": NOW + timedelta(days=number),
        "sequence": str(number),
        "subject": Subject("catga", Kind.LOG, "Order"),
        "group": "billing",
        "body": json.dumps(event).encode(),
        "created_at": NOW,
    }
    return DeadLetter(**given | changes)


def lay(broker: MemoryBroker, *letters: DeadLetter) -> None:
    for each in letters:
        broker.stream("catga", each.subject.type).append([each.outgoing("test")])


def lay_bytes(broker: MemoryBroker, body: bytes) -> None:
    out = replace(letter(99).outgoing("test"), body=body)
    broker.stream("catga", "Order").append([out])


def listed(*words: str) -> list[dict[str, Any]]:
    result = invoke("list", "--json", *words)
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert isinstance(found, list)
    return found


def ids(*words: str) -> list[str]:
    return [each["message_id"] for each in listed(*words)]


def test_a_list_is_one_json_array_also_of_nothing(broker: MemoryBroker) -> None:
    assert listed() == []
    lay(broker, letter(1))
    (shown,) = listed()
    assert shown == {
        "id": "billing/Order/1",
        "group": "billing",
        "type": "Order",
        "message_id": "m-1",
        "cause": "attempts exhausted",
        "error": "ValueError: number 1",
        "attempts": 5,
        "replays": 0,
        "created_at": "2026-01-10T00:00:00+00:00",
        "parked_at": "2026-01-11T00:00:00+00:00",
        "subject": "catga.log.Order.0",
        "sequence": "1",
        "body_bytes": len(letter(1).body),
        "body_kept": True,
        "unreadable": None,
    }


def test_filters_narrow_what_is_found(broker: MemoryBroker) -> None:
    lay(broker, letter(1), letter(2, group="shipping"), letter(3, cause="poison", error="?"))
    other = Subject("catga", Kind.TO, "Parcel", "billing")
    lay(broker, letter(4, subject=other))
    assert sorted(ids()) == ["m-1", "m-2", "m-3", "m-4"]
    assert ids("--group", "shipping") == ["m-2"]
    assert sorted(ids("--group", "shipping", "--group", "billing", "--type", "Order")) == [
        *("m-1", "m-2", "m-3")
    ]
    assert ids("--cause", "POISON") == ["m-3"]
    assert ids("--cause", "valueerror: number 4") == ["m-4"]
    assert ids("--since", "2026-01-13T00:00+00:00", "--type", "Order") == ["m-3"]
    assert sorted(ids("--before", "2026-01-13T00:00+00:00")) == ["m-1", "m-2"]
    assert ids("--since", "36500d", "--before", "1s", "--id", "m-2") == ["m-2"]
    assert ids("--id", "billing/Order/1") == ["m-1"]
    assert len(ids("--limit", "2")) == 2
    assert listed("--namespace", "other") == []


@pytest.mark.parametrize(
    "words",
    [
        ("--since", "yesterday"),
        ("--before", "2026"),
        ("--before", "202601"),
        ("--limit", "0"),
        ("--rate", "0"),
        ("--rate", "nan"),
    ],
)
def test_a_bad_word_is_refused(words: tuple[str, ...], broker: MemoryBroker) -> None:
    command = "replay" if words[0] == "--rate" else "list"
    result = invoke(command, *words)
    assert result.exit_code == 2
    assert words[0] in result.stderr


def test_a_table_holds_what_fits_and_cannot_steer_the_terminal(broker: MemoryBroker) -> None:
    assert "no dead letters at inmemory://letters" in invoke("list").stdout
    lay(broker, *(letter(number) for number in range(1, 4)), letter(4, error="\x1b[2J\u202e!"))
    lay_bytes(broker, b"garbage")
    result = invoke("list")
    assert result.exit_code == 0
    assert "billing/Order/4" in result.stdout
    assert "(unreadable)" in result.stdout
    assert "\x1b" not in result.stdout
    assert "\u202e" not in result.stdout
    assert "the first 2; --limit shows more" in invoke("list", "--limit", "2").stdout


def test_show_tells_everything(broker: MemoryBroker) -> None:
    lay(broker, letter(1), letter(2, body=b"\xff\x1b", cause="poison"))
    lay(broker, letter(3, body=b"", body_left_out=5_000))
    lay_bytes(broker, b"{garbage")
    result = invoke("show")
    assert result.exit_code == 0
    for words in ("in the handler", '"city": "Zürich"', "\\xff\\x1b", "too large", "{garbage"):
        assert words in result.stdout
    shown = json.loads(invoke("show", "--json", "--id", "m-1").stdout)
    assert shown[0]["message"] == {"number": 1, "city": "Zürich"}
    assert shown[0]["traceback"].startswith("Traceback")
    result = invoke("show", "--id", "nobody")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "that are as asked for" in result.stderr


@pytest.mark.parametrize("data", ['"\\ud83d"', '{"c":1e999}', "NaN", "[-Infinity]"])
def test_show_writes_json_whatever_was_parked(broker: MemoryBroker, data: str) -> None:
    attributes = {"specversion": "1.0", "id": "m-2", "type": "Order", "source": "s"}
    headers = {f"ce-{name}": value for name, value in attributes.items()}
    headers["content-type"] = "application/json"
    lay(broker, letter(1), letter(2, body=data.encode(), headers=headers))
    result = invoke("show", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    result.stdout.encode()

    def refuse(word: str) -> None:
        raise ValueError(word)

    shown = json.loads(result.stdout, parse_constant=refuse)
    assert [each["message_id"] for each in shown] == ["m-1", "m-2"]
    assert base64.b64decode(shown[1]["body_base64"]) == data.encode()
    assert invoke("show").exit_code == 0


# ---- replay and purge


@pytest.mark.parametrize("command", ["replay", "purge"])
def test_nothing_is_changed_unless_it_is_said_which_and_confirmed(
    command: str, broker: MemoryBroker
) -> None:
    lay(broker, letter(1))
    result = invoke(command, "--yes")
    assert (result.exit_code, "--all" in result.stderr) == (2, True)
    result = invoke(command, "--all", "--group", "billing", "--yes")
    assert (result.exit_code, "contradict" in result.stderr) == (2, True)
    result = invoke(command, "--all", text="y\n")
    assert (result.exit_code, "add --yes" in result.stderr) == (2, True)
    result = invoke(command, "--all", "--dry-run")
    assert result.exit_code == 0
    assert "would be" in result.stdout
    assert ids() == ["m-1"]
    assert invoke(command, "--id", "nobody").stdout.startswith("0 of 0 dead letters")


def test_purge_removes_what_is_meant_and_no_more(broker: MemoryBroker) -> None:
    lay(broker, *(letter(number) for number in range(1, 251)))
    result = invoke("purge", "--before", "2026-01-13T00:00+00:00", "--yes")
    assert (result.exit_code, result.stdout) == (0, "2 of 2 dead letters removed for good\n")
    result = invoke("purge", "--all", "--yes", "--json", "--rate", "1000000")
    assert json.loads(result.stdout) == {
        "url": "inmemory://letters",
        "namespace": "catga",
        "action": "purge",
        "meant": 248,
        "done": 248,
        "gone": 0,
        "left": [],
        "interrupted": False,
    }
    assert listed() == []


def test_replay_moves_what_can_go_and_names_what_cannot(broker: MemoryBroker) -> None:
    group = broker.stream("catga", "Order").declare(
        Source("catga", "Order", "billing", durable=True)
    )
    lay(broker, letter(1), letter(2, replays=3), letter(3, body=b"", body_left_out=9))
    lay(broker, letter(4, group="gone"))
    rehearsed = json.loads(invoke("replay", "--all", "--dry-run", "--json").stdout)
    refused = {each["message_id"] for each in rehearsed if each["refused"]}
    assert refused == {"m-2", "m-3", "m-4"}
    assert len(ids()) == 4
    result = invoke("replay", "--all", "--yes")
    assert result.exit_code == 1
    assert result.stdout == "1 of 4 dead letters replayed, 3 left as they are\n"
    for words in ("replayed 3 times", "9 bytes", "the group gone takes no Order any more"):
        assert words in result.stderr
    assert sorted(ids()) == ["m-2", "m-3", "m-4"]
    assert [entry.body for entry in group.ready] == [letter(1).body]
    result = invoke("replay", "--id", "m-2", "--yes", "--max-replays", "4", "--json")
    assert (result.exit_code, json.loads(result.stdout)["done"]) == (0, 1)


def test_what_is_parked_during_a_replay_waits_for_the_next_one(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that fails again at once would be replayed for ever."""
    stream = broker.stream("catga", "Order")
    stream.declare(Source("catga", "Order", "billing", durable=True))
    lay(broker, letter(1))
    append = stream.append

    def fails_again(batch: Any) -> Any:
        result, (outgoing,) = append(batch), batch
        if outgoing.subject.kind is Kind.REDO and outgoing.replays < 50:
            lay(broker, letter(1, sequence=f"{outgoing.replays}00", replays=outgoing.replays))
        return result

    monkeypatch.setattr(stream, "append", fails_again)
    result = invoke("replay", "--all", "--yes", "--max-replays", "100")
    assert result.stdout == "1 of 1 dead letter replayed\n"
    assert [each["replays"] for each in listed()] == [1]


def test_ctrl_c_ends_it_with_a_true_count(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(broker, *(letter(number) for number in range(1, 251)))
    remove = MemoryDeadLetters.remove

    async def interrupted(self: Any, letters: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        for _ in range(5):  # until the loop has heard of it
            await asyncio.sleep(0)
        return await remove(self, letters)

    monkeypatch.setattr(MemoryDeadLetters, "remove", interrupted)
    result = invoke("purge", "--all", "--yes")
    assert result.exit_code == 130
    assert result.stdout.startswith("100 of 250 dead letters removed for good; interrupted")
    assert len(listed()) == 150


def test_ctrl_c_while_it_closes_takes_nothing_back(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(broker, *(letter(number) for number in range(1, 4)))
    close = MemoryTransport.close

    async def interrupted(self: MemoryTransport) -> None:
        signal.raise_signal(signal.SIGINT)
        for _ in range(5):
            await asyncio.sleep(0)
        await close(self)

    monkeypatch.setattr(MemoryTransport, "close", interrupted)
    result = invoke("purge", "--all", "--yes")
    assert result.stdout == "3 of 3 dead letters removed for good\n"
    assert result.exit_code == 0


def test_ctrl_c_at_the_question_ends_it_at_once(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def confirm(*_: object, **__: object) -> bool:
        signal.raise_signal(signal.SIGINT)  # as at a terminal: it arrives while we are in there
        return True

    lay(broker, letter(1))
    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(moving, "sys", SimpleNamespace(stdin=terminal, stderr=terminal))
    monkeypatch.setattr(click, "confirm", confirm)
    result = invoke("purge", "--all")
    assert (result.exit_code, result.stdout) == (130, "")
    assert "nothing was changed" in result.stderr
    assert ids() == ["m-1"]
    monkeypatch.setattr(click, "confirm", lambda *_, **__: False)
    assert invoke("purge", "--all").exit_code == 1
    assert ids() == ["m-1"]
