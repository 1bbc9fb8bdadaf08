"""The programs as tests: `class TestMine(ProgramContract)` with a fixture `harness`."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given

from catga.model.capability import QOS_CAPABILITY, Capability
from catga.testing.harness import Ability, Harness
from catga.testing.programs.coverage import Coverage
from catga.testing.programs.play import keep_the_laws, without_logs
from catga.testing.programs.profiles import chosen_profile
from catga.testing.programs.scenarios import SCENARIOS, Scenario
from catga.testing.programs.steps import Program
from catga.testing.programs.strategies import programs

__all__ = ["ProgramContract"]


class ProgramContract:
    """Scripted and random programs; each breaks no law, whatever fails meanwhile.

    There is one test per scenario, named after it. `CATGA_TEST_PROFILE` (`dev`, `ci`, `nightly`)
    says how many random programs are drawn.
    """

    def test_random_programs_keep_the_laws(self, harness: Harness) -> None:
        """Nor does any program that is drawn; and together they come to everything there is."""
        coverage = Coverage()
        drawn = programs(_qualities(harness), harness.abilities, harness.declared)

        @chosen_profile().settings(harness)
        @given(drawn)
        def run(program: Program) -> None:
            keep_the_laws(harness, program, coverage=coverage)

        with without_logs():
            run()
        able: set[Ability | Capability] = {*harness.abilities, *harness.declared}
        assert not (lacking := coverage.lacking(able)), lacking


def _qualities(harness: Harness) -> frozenset[int]:
    declared = harness.declared
    return frozenset(int(qos) for qos, needed in QOS_CAPABILITY.items() if needed in declared)


def _test(name: str, scenario: Scenario) -> Callable[[ProgramContract, Harness], None]:
    def test(self: ProgramContract, harness: Harness) -> None:
        del self
        keep_the_laws(harness, scenario.program, shows=scenario.shows, name=name)

    test.__name__ = name
    test.__qualname__ = f"{ProgramContract.__qualname__}.{name}"
    return test


for _name, _scenario in SCENARIOS.items():
    setattr(ProgramContract, f"test_{_name}", _test(f"test_{_name}", _scenario))
