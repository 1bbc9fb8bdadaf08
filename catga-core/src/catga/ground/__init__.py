"""Floor 0: time, ids and the hard asyncio idioms. Knows nothing of messages."""
