"""What an error says of itself, as it can be kept and sent, and when it is told with its trace."""

from __future__ import annotations

import logging

from catga.errors import CatgaError

__all__ = ["tell_of", "words_of"]

_log = logging.getLogger("catga")
_LONGEST = 2000


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


def tell_of(error: BaseException, what: str) -> str:
    """Return what is told of an error that a plugin raised: its text.

    Of one that no plugin raises by its contract the class as well, and it is logged as `what` with
    its trace: where it came from is all that there is to find it by.
    """
    words = words_of(error)
    if isinstance(error, CatgaError):
        return words
    _log.error("%s", what, exc_info=error)
    return f"{type(error).__name__}: {words}"
