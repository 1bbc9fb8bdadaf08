"""Floor 1: the nouns. Frozen values and pure functions."""
