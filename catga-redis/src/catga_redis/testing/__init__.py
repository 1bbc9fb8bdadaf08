"""Private Redis or Valkey servers, alone or as a pair, for tests and demonstrations."""

from catga_redis.testing.pair import RedisPair
from catga_redis.testing.server import RedisServer, find_server

__all__ = ["RedisPair", "RedisServer", "find_server"]
