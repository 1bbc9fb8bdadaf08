"""Floor 6: the `catga` program."""

from catga.cli.app import main

__all__ = ["main"]
