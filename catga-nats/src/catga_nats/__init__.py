"""NATS core and JetStream as a Catga transport."""

from catga_nats.settings import NatsSettings, Storage

__all__ = ["NatsSettings", "Storage"]
