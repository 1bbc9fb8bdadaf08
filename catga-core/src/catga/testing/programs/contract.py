"""The programs as tests: `class TestMine(ProgramContract)` with a fixture `harness`."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given

from catga.model.capability import QOS_CAPABILITY, Capability
from catga.testing.harness import Harness
from catga.testing.programs.coverage import Coverage
from catga.testing.programs.play import keep_the_laws, without_logs
from catga.testing.programs.profiles import Profile, chosen_profile
from catga.testing.programs.scenarios import SCENARIOS, Scenario
from catga.testing.programs.steps import Program
from catga.testing.programs.strategies import programs
from catga.testing.verify import look_at

__all__ = ["ProgramContract", "keep_the_laws_at_random"]

_RANDOM = "test_random_programs_keep_the_laws"


class ProgramContract:
    """Scripted and random programs; each breaks no law, whatever fails meanwhile.

    There is one test per scenario, named after it. `CATGA_TEST_PROFILE` (`dev`, `ci`, `nightly`)
    says how many random programs are drawn.
    """

    def test_random_programs_keep_the_laws(self, harness: Harness) -> None:
        """Nor does any program that is drawn; and together they come to everything there is."""
        present = look_at(harness).capabilities.present
        with without_logs():
            coverage = keep_the_laws_at_random(harness, present, chosen_profile(), _RANDOM)
        assert not (lacking := coverage.lacking(harness.abilities | present)), lacking


def keep_the_laws_at_random(
    harness: Harness, present: frozenset[Capability], profile: Profile, name: str
) -> Coverage:
    """Assert that no program breaks a law that needs no more than what is `present`, and return
    what they came to. Where none can be played, `Harness.not_shown` says so under `name`."""
    coverage = Coverage()
    qualities = [int(qos) for qos, needed in QOS_CAPABILITY.items() if needed in present]

    @profile.settings(harness)
    @given(programs(qualities, harness.abilities, present))
    def run(program: Program) -> None:
        keep_the_laws(harness, program, name=name, coverage=coverage)

    run()
    if coverage.programs:  # those of them that could be executed
        harness.not_shown.pop(name, None)
    return coverage


def _test(name: str, scenario: Scenario) -> Callable[[ProgramContract, Harness], None]:
    def test(self: ProgramContract, harness: Harness) -> None:
        del self
        keep_the_laws(harness, scenario.program, shows=scenario.shows, name=name)

    test.__name__ = name
    test.__qualname__ = f"{ProgramContract.__qualname__}.{name}"
    return test


for _name, _scenario in SCENARIOS.items():
    setattr(ProgramContract, f"test_{_name}", _test(f"test_{_name}", _scenario))
