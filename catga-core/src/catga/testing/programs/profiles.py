"""How many programs are drawn: `dev` at the desk, `ci` for each change, `nightly` to search."""

from __future__ import annotations

import os
from collections.abc import Mapping

import attrs
from hypothesis import HealthCheck, Phase, settings

from catga.errors import ConfigurationError
from catga.testing.harness import Harness

__all__ = ["PROFILES", "VARIABLE", "Profile", "chosen_profile"]

VARIABLE = "CATGA_TEST_PROFILE"


@attrs.frozen
class Profile:
    """So many programs where time costs nothing, so many over a real broker."""

    manual: int
    real: int
    shrink_real: bool = False
    """Over a broker one failure can take minutes to shrink: run it again in `dev` for that."""

    def settings(self, harness: Harness) -> settings:
        """Return Hypothesis's settings: the same programs each time, no database, no deadline."""
        shrink = harness.manual_clock or self.shrink_real
        return settings(
            max_examples=self.manual if harness.manual_clock else self.real,
            deadline=None,
            derandomize=True,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        )


PROFILES: Mapping[str, Profile] = {
    "dev": Profile(200, 5, shrink_real=True),
    "ci": Profile(2_000, 30),
    "nightly": Profile(20_000, 1_000),
}


def chosen_profile() -> Profile:
    """Return the profile that `CATGA_TEST_PROFILE` names; `dev` without it.

    Raises `ConfigurationError` for an unknown name.
    """
    name = os.environ.get(VARIABLE, "dev")
    try:
        return PROFILES[name]
    except KeyError:
        known = ", ".join(PROFILES)
        raise ConfigurationError(f"{VARIABLE}={name} is none of {known}") from None
