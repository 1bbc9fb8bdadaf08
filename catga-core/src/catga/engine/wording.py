"""What an error says of itself, as it can be kept and sent."""

from __future__ import annotations

__all__ = ["words_of"]


def words_of(error: BaseException) -> str:
    """Return the text of an error, `?` for what is no text in it. Never raises.

    Its `__str__` is the program's own code, and does what it likes.
    """
    try:
        return str(error).encode("utf-8", "replace").decode()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as failure:
        return f"(no words: its __str__ raised {type(failure).__name__})"
