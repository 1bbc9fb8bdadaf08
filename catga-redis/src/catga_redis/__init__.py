"""Redis and Valkey (Pub/Sub, Streams, Lua) as a Catga transport.

Found by the bus through its entry point; `catga_redis.testing` brings private servers.
"""
