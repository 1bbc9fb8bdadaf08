"""Laws of the benchmark itself: what it reports follows from its rounds, and everybody plays."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from benchmarks.job import Job, fields
from benchmarks.measure import Failed, Laboratory
from benchmarks.paths import PATHS, PEERS
from benchmarks.report import Entry, entries_of, entry, write
from benchmarks.table import markdown
from benchmarks.targets import TARGETS, ratio_of

ROOT = Path(__file__).parents[2]
ROUNDS = (
    {"catga": 300.0, "raw_documented": 100.0, "faststream": 40.0},
    {"catga": 100.0, "raw_documented": 400.0, "faststream": 10.0},
    {"catga": 200.0, "raw_documented": 800.0, "faststream": 20.0},
)
SHAPE = {"path", "metric", "size_bytes", "catga", "peers", "ratios", "rounds"}


def check_report(entries: list[dict[str, Any]]) -> None:
    for each in entries:
        assert each.keys() == SHAPE
        assert each["peers"].keys() == each["ratios"].keys() == set(PEERS)
        assert each["catga"] == median(one["catga"] for one in each["rounds"])
        for peer in PEERS:
            figures = [one[peer] for one in each["rounds"] if peer in one]
            assert len(figures) in (0, len(each["rounds"]))
            if not figures:
                assert each["peers"][peer] is each["ratios"][peer] is None
                continue
            assert each["peers"][peer] == median(figures)
            assert each["ratios"][peer] == pytest.approx(each["catga"] / median(figures))


def test_ratios_of_a_report_follow_from_its_rounds(tmp_path: Path) -> None:
    written = entry("nats qos0 publish", "messages_per_second", 128, ROUNDS)
    write(tmp_path, [written], markdown([written], {}, []))
    entries = json.loads((tmp_path / "latest.json").read_text())
    check_report(entries)
    assert entries[0]["ratios"] == {
        "raw_documented": 0.5,
        "raw_best": None,
        "faststream": 10.0,
        "taskiq": None,
    }
    assert "| 0.50 |" in (tmp_path / "latest.md").read_text()


def test_ratios_of_the_published_reports_follow_from_their_rounds() -> None:
    for path in (ROOT / "docs" / "performance").glob("*.json"):
        check_report(json.loads(path.read_text()))


def test_what_was_not_measured_stands_in_the_table_with_its_reason() -> None:
    table = markdown([], {"nats qos1 consume, 128 B": "messages were lost"}, [])
    assert "- nats qos1 consume, 128 B: messages were lost" in table


@pytest.mark.parametrize("size", [128, 1024])
def test_every_message_has_the_size_that_is_reported(size: int) -> None:
    job = Job("inmemory://", 0, size, 3)
    assert [len(body) for body in job.bodies()] == [size] * 3
    assert json.loads(job.bodies()[2]) == fields(2, size)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_every_contestant_has_the_roles_of_its_path(path: Any) -> None:
    needed = {ROLE_OF.get(path.role, path.role)}
    needed |= {"prepare"} if path.qos and path.broker != "memory" else set()
    needed |= {"answer"} if path.role == "request" else set()
    needed |= (
        {"publish"} if path.role == "consume" else {"consume"} if path.role == "paced" else set()
    )
    for module in path.contestants.values():
        source = (ROOT / "benchmarks" / "contestants" / f"{module}.py").read_text()
        assert needed <= _names(ast.parse(source).body), module


ROLE_OF = {"one_by_one": "sender", "paced": "sender", "request": "asker"}


def _names(body: list[ast.stmt]) -> set[str]:
    names = {node.name for node in body if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)}
    imported = [node for node in body if isinstance(node, ast.ImportFrom)]
    return names | {alias.name for node in imported for alias in node.names}


def test_every_target_belongs_to_a_path_and_a_peer_that_are_measured() -> None:
    round_of = {"messages_per_second": 1.0}
    latency = {f"latency_p{each}_microseconds": 1.0 for each in (50, 99)}
    entries: list[Entry] = []
    for path in PATHS:
        figures = latency if path.role == "paced" else round_of
        entries += entries_of(path, 128, [dict.fromkeys(path.contestants, figures)])
    assert [target for target in TARGETS if ratio_of(target, entries) is None] == []


def test_a_target_is_reached_from_its_own_side() -> None:
    rate = next(each for each in TARGETS if not each.at_most)
    latency = next(each for each in TARGETS if each.at_most)
    assert rate.reached(rate.bound)
    assert not rate.reached(rate.bound * 0.99)
    assert latency.reached(latency.bound)
    assert not latency.reached(latency.bound * 1.01)


def test_an_entry_beside_a_path_comes_from_the_same_rounds() -> None:
    (path,) = (path for path in PATHS if path.name == "nats qos0 publish")
    rounds = [{"catga": {"m": 2.0}, "raw_best": {"m": 8.0}, "raw_encoded": {"m": 4.0}}]
    plain, beside = entries_of(path, 128, rounds)
    assert (plain["ratios"]["raw_best"], beside["ratios"]["raw_best"]) == (0.25, 0.5)
    assert beside["path"] == "nats qos0 publish (same encoding)"


def test_a_contestant_is_measured_in_a_process_of_its_own() -> None:
    (path,) = (path for path in PATHS if path.name == "memory qos1 exchange")
    laboratory = Laboratory()
    with laboratory.team() as team:
        for _ in range(2):
            assert laboratory.turn(team, path, "catga", 128, 2000)["messages_per_second"] > 0


def test_a_contestant_that_handles_too_few_has_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = (path for path in PATHS if path.name == "memory qos1 exchange")
    lossy = {"total": 1999, "timed": 1999, "seconds": 1.0, "cpu": 1.0}
    monkeypatch.setattr(Laboratory, "_play", lambda *_: lossy)
    laboratory = Laboratory()
    with laboratory.team() as team, pytest.raises(Failed, match="1999 of 2000 messages"):
        laboratory.turn(team, path, "catga", 128, 2000)
