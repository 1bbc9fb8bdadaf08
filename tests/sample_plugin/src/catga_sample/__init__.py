"""A Catga transport of a third party."""
