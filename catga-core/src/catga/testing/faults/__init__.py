"""Faults as parts: a TCP proxy that misbehaves on demand, and processes that die on demand."""

from catga.testing.faults.child import ChildProcess
from catga.testing.faults.point import passing
from catga.testing.faults.proxy import FaultCounts, FaultProxy

__all__ = ["ChildProcess", "FaultCounts", "FaultProxy", "passing"]
