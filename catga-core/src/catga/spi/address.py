"""Where a broker is, with what must never be shown kept apart."""

from __future__ import annotations

from typing import NoReturn

import attrs

__all__ = ["Address", "Secret"]


class Secret:
    """A word that never shows itself: not in a repr, a log, an error or a pickle."""

    __slots__ = ("_word",)

    def __init__(self, word: str) -> None:
        self._word = word

    def reveal(self) -> str:
        """Return the word itself, for the one place that must send it."""
        return self._word

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")


@attrs.frozen
class Address:
    """A parsed URL without its query (that went into the settings)."""

    scheme: str
    hosts: tuple[tuple[str, int | None], ...] = ()
    """Host and port, in the order given; the port is None when the URL names none."""
    path: str = ""
    """Without the leading slash."""
    username: Secret | None = None
    password: Secret | None = None

    @property
    def shown(self) -> str:
        """The URL as it may be shown: no user information, no query."""
        hosts = ",".join(
            (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")
            for host, port in self.hosts
        )
        return f"{self.scheme}://{hosts}" + (f"/{self.path}" if self.path else "")

    def __str__(self) -> str:
        return self.shown
