"""Parts for tests: what a plugin author or a user needs to hold Catga to its words."""

from catga.ground.clock import ManualClock, settle_loop
from catga.testing.cleaning import remove_namespace
from catga.testing.faults import ChildProcess, FaultProxy, passing
from catga.testing.process import ServerProcess, free_port, named_servers

__all__ = [
    "ChildProcess",
    "FaultProxy",
    "ManualClock",
    "ServerProcess",
    "free_port",
    "named_servers",
    "passing",
    "remove_namespace",
    "settle_loop",
]
