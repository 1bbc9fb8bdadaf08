"""Private Redis or Valkey servers for tests: alone, as a pair, with a sentinel, as a cluster."""

from catga_redis.testing.cluster import RedisCluster
from catga_redis.testing.pair import RedisPair
from catga_redis.testing.sentinel import RedisSentinel
from catga_redis.testing.server import RedisServer, find_server

__all__ = ["RedisCluster", "RedisPair", "RedisSentinel", "RedisServer", "find_server"]
