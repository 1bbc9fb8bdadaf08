"""Process memory as a Catga transport: the same contract as the brokers, within one process."""

from catga_inmemory.settings import MemorySettings

__all__ = ["MemorySettings"]
