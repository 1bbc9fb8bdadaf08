"""Who watches: instruments, compiled once into tuples of functions; `None` when nobody does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from catga.spi import Instrument

__all__ = ["Signals"]

_log = logging.getLogger("catga")
_Watch = Callable[..., None]


class Signals:
    """One callable per signal, or `None`. A raising instrument is switched off, logged once."""

    published: _Watch | None
    started: _Watch | None
    finished: _Watch | None
    settled: _Watch | None

    def __init__(self, instruments: Sequence[Instrument] = ()) -> None:
        self._instruments = list(instruments)
        self._compile()

    def _compile(self) -> None:
        for name in ("published", "started", "finished", "settled"):
            setattr(self, name, self._fan_out(name))

    def _fan_out(self, name: str) -> _Watch | None:
        base = getattr(Instrument, name)
        watchers = tuple(
            (instrument, getattr(instrument, name))
            for instrument in self._instruments
            if getattr(type(instrument), name) is not base
        )
        if not watchers:
            return None

        def tell(*facts: Any) -> None:
            for instrument, watch in watchers:
                try:
                    watch(*facts)
                except Exception:
                    self._switch_off(instrument)

        return tell

    def _switch_off(self, instrument: Instrument) -> None:
        if instrument in self._instruments:
            self._instruments.remove(instrument)
            _log.exception("the instrument %r raised and is switched off", type(instrument))
            self._compile()
