"""Parts for tests: what a plugin author or a user needs to hold Catga to its words."""

from catga.ground.clock import ManualClock, settle_loop
from catga.testing.cleaning import remove_namespace
from catga.testing.faults import ChildProcess, FaultProxy, passing
from catga.testing.process import ServerProcess, free_port, named_servers
from catga.testing.running import Running, wait_until

__all__ = [
    "ChildProcess",
    "FaultProxy",
    "ManualClock",
    "Running",
    "ServerProcess",
    "free_port",
    "named_servers",
    "passing",
    "remove_namespace",
    "settle_loop",
    "wait_until",
]
