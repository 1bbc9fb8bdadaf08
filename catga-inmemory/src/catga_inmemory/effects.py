"""The keys of transactions in memory."""

from __future__ import annotations

from collections.abc import Sequence

from catga.spi import EffectKey, Effects, EffectStore, Found

__all__ = ["MemoryEffects"]


class MemoryEffects(EffectStore):
    """Values in a dictionary. The version is a count: of what is there now, and of no other."""

    def __init__(self) -> None:
        self._values: dict[EffectKey, Found] = {}
        self._count = 0

    async def read(self, keys: Sequence[EffectKey]) -> list[Found]:
        """Look each key up."""
        return [self._values.get(key, _NOTHING) for key in keys]

    def fits(self, effects: Effects) -> bool:
        """Say whether everything that was read is still as it was."""
        now = self._values
        return all(
            now.get(key, _NOTHING).version == seen.version for key, seen in effects.reads.items()
        )

    def apply(self, effects: Effects) -> None:
        """Write all of it."""
        for key, value in effects.writes.items():
            self._count += 1
            if value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = Found(value, str(self._count))

    def remove(self, namespace: str) -> None:
        """Forget the keys of a namespace."""
        for key in [key for key in self._values if key.namespace == namespace]:
            del self._values[key]


_NOTHING = Found(None, "")
