"""What an error says of itself, as it can be kept and sent, and when it is told with its trace."""

from __future__ import annotations

import logging

from catga.errors import CatgaError

__all__ = ["trace_unforeseen", "words_of"]

_log = logging.getLogger("catga")
_LONGEST = 2000


def trace_unforeseen(error: BaseException, what: str) -> None:
    """Log with its trace what a plugin never raises by its contract: where it came from is all
    that there is to find it by."""
    if not isinstance(error, CatgaError):
        _log.error("%s", what, exc_info=error)


def words_of(error: BaseException) -> str:
    """Return the text of an error, at most 2000 characters of it, `?` for what is no text. Never
    raises.

    Its `__str__` is the program's own code, and does what it likes. What is longer says so at its
    end: where it goes a broker has a limit.
    """
    try:
        text = str(error)
        if len(text) > _LONGEST:
            text = f"{text[:_LONGEST]} (cut: it has {len(text)} characters)"
        return text.encode("utf-8", "replace").decode()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as failure:
        return f"(no words: its __str__ raised {type(failure).__name__})"
