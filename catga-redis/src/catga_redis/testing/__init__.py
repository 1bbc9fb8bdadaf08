"""Private Redis or Valkey servers for tests: alone, as a pair, with a sentinel."""

from catga_redis.testing.pair import RedisPair
from catga_redis.testing.sentinel import RedisSentinel
from catga_redis.testing.server import RedisServer, find_server

__all__ = ["RedisPair", "RedisSentinel", "RedisServer", "find_server"]
