"""Parts for tests: what a plugin author or a user needs to hold Catga to its words."""

from catga.ground.clock import ManualClock, settle_loop
from catga.testing.cleaning import remove_namespace
from catga.testing.process import ServerProcess, free_port, named_servers

__all__ = [
    "ManualClock",
    "ServerProcess",
    "free_port",
    "named_servers",
    "remove_namespace",
    "settle_loop",
]
