"""Between typed objects and bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

__all__ = ["Codec"]


class Codec(ABC):
    """Two-way, for one content type."""

    content_type: str

    @abstractmethod
    def register(self, cls: type) -> None:
        """Prepare for `cls`. Raises `ConfigurationError` when it can never be carried."""

    @abstractmethod
    def encode(self, value: Any) -> bytes:
        """Return the bytes of `value`. Raises `EncodeError`."""

    @abstractmethod
    def decode(self, data: bytes, cls: type) -> Any:
        """Return the `cls` that `data` holds. Raises `DecodeError`."""
