"""The kit on a transport that is not ours, as its author would use it: the whole contract, then
scenarios and random programs. SQLite has no port to cut and no server to end: what needs those is
listed as not shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from catga.testing.contract import TransportContract
from catga.testing.harness import Harness
from catga.testing.programs import ProgramContract


class TestContract(TransportContract):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return Harness(
            url=f"sample://{tmp_path}/file.db",
            time_scale=0.2,
            small={"live_buffer": 50, "max_payload_bytes": 65_536},
            small_buffer=50,
        )


class TestPrograms(ProgramContract):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return Harness(url=f"sample://{tmp_path}/file.db", time_scale=0.15)
