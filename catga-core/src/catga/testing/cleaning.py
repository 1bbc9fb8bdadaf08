"""Leaving a broker as it was found."""

from __future__ import annotations

from catga.bus import Bus

__all__ = ["remove_namespace"]


async def remove_namespace(url: str, namespace: str) -> None:
    """Delete everything that belongs to a namespace from the broker at `url`.

    For tests and demonstrations, with names of their own. Raises what connecting raises, and
    `CapabilityError` when the transport cannot.
    """
    async with Bus(url, service="cleaning", namespace=namespace, consume=False) as bus:
        await bus.transport.remove(namespace)
