"""A Catga transport of a third party: messages in one SQLite file."""
