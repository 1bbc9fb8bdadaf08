"""The kit itself: what is not there must refuse, and what was not shown is said."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import attrs
import pytest

from catga.model.capability import Capabilities, Capability
from catga.plugins import Catalog, installed_catalog
from catga.spi import (
    Mode,
    Outgoing,
    PublishResult,
    Runtime,
    Topology,
    Transport,
    TransportDescriptor,
)
from catga.testing.contract import (
    AtLeastOnceContract,
    CapabilitiesContract,
    CompletionContract,
    CrashesContract,
)
from catga.testing.harness import Ability, Harness
from catga.testing.programs import Again, Program, ProgramContract, Publish, Together
from catga.testing.programs.coverage import Coverage
from catga.testing.programs.history import History
from catga.testing.programs.play import as_code
from catga.testing.stage import Stage
from catga.testing.tap import Tap, TappedTransport
from catga.testing.verify import Verdict, checks_of, find, look_at

BARE = frozenset({Capability.AT_MOST_ONCE, Capability.AT_LEAST_ONCE})


class Bare(TappedTransport):
    """Memory that says it can do less; the commands themselves are as absent as it says."""

    honest = True

    def __init__(self, inner: Transport, present: Collection[Capability]) -> None:
        super().__init__(inner, Tap())
        self._capabilities = Capabilities(
            frozenset(present), dict.fromkeys(Capability, "it was left out")
        )

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities


def catalog(
    declared: Collection[Capability], present: Collection[Capability], kind: type[Bare] = Bare
) -> Catalog:
    found = installed_catalog()
    memory = found.transport_for("inmemory")
    less: TransportDescriptor = attrs.evolve(
        memory,
        capabilities=frozenset(declared),
        factory=lambda *parts: kind(memory.factory(*parts), present),
    )
    return attrs.evolve(found, transports={**found.transports, "inmemory": less})


def harness(
    declared: Collection[Capability], present: Collection[Capability], kind: type[Bare] = Bare
) -> Harness:
    return Harness(
        url="inmemory://kit", manual_clock=True, catalog=catalog(declared, present, kind)
    )


def test_what_is_not_declared_is_refused_and_its_laws_are_not_shown() -> None:
    bare = harness(BARE, BARE)
    laws = CapabilitiesContract()
    laws.test_each_quality_works_or_refuses_to_start(bare)
    laws.test_live_groups_share_or_are_refused(bare)
    assert bare.not_shown == {}
    CompletionContract().test_a_commit_records_and_acknowledges(bare)
    assert bare.not_shown == {"test_a_commit_records_and_acknowledges": "commit, exactly-once"}


def test_a_transport_that_does_what_it_does_not_declare_breaks_a_law() -> None:
    bare = harness(BARE, BARE)
    laws = CapabilitiesContract()
    with pytest.raises(AssertionError):
        laws.test_waiting_until_handled_is_there_or_refused(bare)


def test_what_the_connected_server_lacks_is_not_shown_either() -> None:
    weak = harness(frozenset(Capability), BARE)
    CompletionContract().test_a_record_is_there_once_written_and_not_before(weak)
    assert weak.not_shown == {"test_a_record_is_there_once_written_and_not_before": "exactly-once"}
    CapabilitiesContract().test_nothing_is_there_that_is_not_declared_and_what_is_missing_has_a_reason(
        weak
    )


def test_what_is_there_and_not_declared_breaks_a_law() -> None:
    liar = harness(BARE, frozenset(Capability))
    with pytest.raises(AssertionError):
        CapabilitiesContract().test_nothing_is_there_that_is_not_declared_and_what_is_missing_has_a_reason(
            liar
        )


def test_every_law_says_what_it_promises_and_from_where() -> None:
    for name, test in vars(AtLeastOnceContract).items():
        if name.startswith("test_"):
            assert test.law.name == name
            assert test.law.words.startswith("QoS 1")
            assert Capability.AT_LEAST_ONCE in test.law.needs


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("nats://127.0.0.1:4222", 4222),
        ("redis://user:p%3A4222@localhost:6379/2?a=b", 6379),
        ("nats://127.0.0.1:4222,127.0.0.1:4223", None),
        ("nats://example.org:4222", None),
        ("inmemory://name", None),
    ],
)
def test_one_port_of_loopback_can_be_reached_through_a_proxy(url: str, port: int | None) -> None:
    reached = Harness(url=url)
    assert reached.proxied_port == port
    assert (Ability.CUT in reached.abilities) is (port is not None)
    if port is not None:
        assert reached.url_at(1) == url.replace(f":{port}", ":1")


@pytest.mark.parametrize(("time_scale", "seconds"), [(15.0, 900.0), (1.0, 60.0), (0.2, 60.0)])
def test_a_law_may_take_longer_where_time_goes_by_more_slowly(
    time_scale: float, seconds: float
) -> None:
    assert Harness(url="inmemory://kit", time_scale=time_scale).law_seconds == seconds


def test_a_law_that_hangs_is_ended_after_its_scaled_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("catga.testing.harness._LAW_SECONDS", 0.02)
    took: list[float] = []

    async def hang(_stage: Stage) -> None:
        began = asyncio.get_running_loop().time()
        try:
            await asyncio.Event().wait()
        finally:
            took.append(asyncio.get_running_loop().time() - began)

    with pytest.raises(TimeoutError):
        Harness(url="inmemory://kit", time_scale=15.0).run(hang)
    assert took[0] > 0.1, "0.3 s less what it took to set the stage"


class Distant(Bare):
    async def open(self, runtime: Runtime) -> None:
        self.clock = runtime.clock
        await super().open(runtime)

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        await self.clock.sleep(25.0)
        return await super().publish(batch)


@pytest.mark.parametrize("time_scale", [0.5, 1.0, 2.0])
def test_a_distant_broker_keeps_the_laws_where_time_goes_by_more_slowly(time_scale: float) -> None:
    distant = attrs.evolve(harness(BARE, BARE, Distant), time_scale=time_scale)
    law = AtLeastOnceContract().test_what_was_published_before_the_first_start_is_delivered
    with nullcontext() if time_scale > 1 else pytest.raises(AssertionError, match="it took too"):
        law(distant)


class NeverCloses(Bare):
    async def close(self) -> None:
        await super().close()  # the broker is shared by name
        await asyncio.Event().wait()


@pytest.mark.parametrize("broken", [False, True])
def test_a_transport_that_never_closes_breaks_every_law_in_words(broken: bool) -> None:
    begun: list[Stage] = []

    async def act(stage: Stage) -> None:
        begun.append(stage)
        assert not broken, "the law itself"

    never = harness(BARE, BARE, NeverCloses)
    with pytest.raises(AssertionError, match=r"Transport\.close took too long") as found:
        never.run(act)
    assert begun
    assert ("the law itself" in str(found.value.__context__)) == broken
    with pytest.raises(AssertionError, match=r"Transport\.close took too long"):
        look_at(never)


def test_a_transport_that_never_removes_is_said_to_have_left_something_behind() -> None:
    class NeverRemoves(Bare):
        async def remove(self, namespace: str) -> None:
            await asyncio.Event().wait()

    never = harness(BARE, BARE, NeverRemoves)
    CapabilitiesContract().test_live_groups_share_or_are_refused(never)
    assert set(never.left_behind.values()) == {"Transport.remove took too long"}


@pytest.mark.parametrize(("field", "window"), [("dedupe_window", "W"), ("completion_ttl", "D")])
def test_who_remembers_for_longer_than_asked_is_not_blamed(field: str, window: str) -> None:
    more: dict[str, Any] = {field: 86_400.0}

    class Remembers(Bare):
        async def prepare(self, topology: Topology, mode: Mode) -> None:
            await super().prepare(attrs.evolve(topology, **more), mode)

    everything = frozenset(Capability) - {Capability.DISCOVERY}
    long = harness(everything, everything, Remembers)
    laws = CrashesContract()
    laws.test_after_w_an_id_is_stored_again_and_within_d_not_handled_again(long)
    laws.test_after_w_and_d_a_copy_is_handled_once_more(long)
    of_w = {"test_after_w_an_id_is_stored_again_and_within_d_not_handled_again"}
    of_both = {"test_after_w_and_d_a_copy_is_handled_once_more"}
    unseen = of_w | of_both if window == "W" else of_both
    assert long.not_shown == dict.fromkeys(unseen, f"an end of {window} in less than 20 s")


def test_the_report_lists_what_was_not_shown(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "import pytest\n"
        "from catga.testing.contract import RecoveryContract\n"
        "from catga.testing.harness import Harness\n"
        "class TestMine(RecoveryContract):\n"
        "    @pytest.fixture\n"
        "    def harness(self):\n"
        "        return Harness(url='inmemory://mine', manual_clock=True)\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "catga.testing.report", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "laws not shown" in done.stdout
    assert "restart_of_the_broker: needs restart the broker on its data" in done.stdout


def test_the_report_lists_scenarios_that_were_not_shown(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "import pytest\n"
        "from catga.testing.harness import Harness\n"
        "from catga.testing.programs import ProgramContract\n"
        "class TestMine(ProgramContract):\n"
        "    @pytest.fixture\n"
        "    def harness(self):\n"
        "        return Harness(url='inmemory://mine', manual_clock=True)\n"
    )
    words = ("-p", "catga.testing.report", "-k", "waits_outlives_a_restart")
    command = [sys.executable, "-m", "pytest", *words, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "test_what_waits_outlives_a_restart: needs restart the broker on its data" in done.stdout


WITHOUT_DELAY = frozenset(Capability) - {Capability.DELAY, Capability.DEAD_LETTERS}


def random_programs(harness: Harness) -> dict[str, str]:
    """Draw programs, and return what was not shown."""
    ProgramContract().test_random_programs_keep_the_laws(harness)
    return harness.not_shown


def test_where_no_program_can_be_played_that_is_said_under_the_name_of_the_test() -> None:
    noted = random_programs(harness(BARE, BARE))
    assert noted == {"test_random_programs_keep_the_laws": "live-groups"}
    (check,) = checks_of(["programs"], 5, look_at(harness(BARE, BARE)))
    found = find(check, harness(BARE, BARE))
    assert (found.verdict, found.reason) == (Verdict.NOT_SHOWN, "live-groups")


def test_the_number_of_programs_that_ran_is_told_and_none_is_drawn_in_vain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    played: list[Program] = []

    def add(self: Coverage, program: Program, history: History) -> None:
        played.append(program)
        count(self, program, history)

    count = Coverage.add
    monkeypatch.setattr(Coverage, "add", add)
    weak = harness(frozenset(Capability), WITHOUT_DELAY)
    (check,) = checks_of(["programs"], 40, look_at(weak))
    found = find(check, weak)
    assert (found.verdict, len(played)) == (Verdict.SHOWN, 40), found.report
    assert found.law.words == "no law is broken by 40 random programs"


@pytest.mark.parametrize("quality", [Capability.AT_MOST_ONCE, Capability.AT_LEAST_ONCE])
def test_random_programs_demand_only_what_is_there(
    quality: Capability, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATGA_TEST_PROFILE", "dev")
    present = {Capability.AT_MOST_ONCE, quality, Capability.LIVE_GROUPS}
    assert random_programs(harness(frozenset(Capability), present)) == {}


def test_a_program_that_was_found_is_kept_by_pasting_it(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import pytest\n"
        "from catga.testing.harness import Harness\n"
        "@pytest.fixture\n"
        "def harness():\n"
        "    return Harness(url='inmemory://mine', manual_clock=True)\n"
    )
    program = Program((Publish(2, a=("raise",)), Together((Again(), Publish(1)))), members=(2,))
    (tmp_path / "test_found.py").write_text(as_code(program))
    command = [sys.executable, "-m", "pytest", "-q", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout
