"""Private NATS servers, alone or three together, for tests and demonstrations."""

from catga_nats.testing.cluster import NatsCluster
from catga_nats.testing.server import BINARY_VARIABLE, NatsServer, find_binary

__all__ = ["BINARY_VARIABLE", "NatsCluster", "NatsServer", "find_binary"]
