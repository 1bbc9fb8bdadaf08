"""The hooks a plugin may implement. Each returns frozen descriptors, once, at start-up.

A plugin is whatever its entry point of group `catga` names, most simply a module:

    [project.entry-points.catga]
    carrier = "catga_carrier.plugin"

Hooks are plain functions (never `async`), marked with `hookimpl`. The module that holds them
imports nothing heavy: a client library is imported by the descriptor's factory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pluggy

from catga.spi import CommandDescriptor, Instrument, Middleware, TransportDescriptor

__all__ = ["ENTRY_POINT_GROUP", "HOOK_PREFIX", "HookSpecs", "hookimpl"]

ENTRY_POINT_GROUP = "catga"
HOOK_PREFIX = "catga_"

hookspec = pluggy.HookspecMarker("catga")
hookimpl = pluggy.HookimplMarker("catga")
"""Marks a function of a plugin as the implementation of the hook it is named for."""


class HookSpecs:
    """What the core asks every plugin for; all of it is optional."""

    @hookspec
    def catga_transports(self) -> Sequence[TransportDescriptor]:
        """Return the transports this plugin brings, each with the URL schemes it claims."""
        raise NotImplementedError

    @hookspec
    def catga_middleware(self) -> Sequence[Middleware | Callable[[], Middleware]]:
        """Return what stands around every handler: instances, shared by all buses of the
        process, or classes and factories, called once per bus."""
        raise NotImplementedError

    @hookspec
    def catga_instruments(self) -> Sequence[Instrument | Callable[[], Instrument]]:
        """Return what watches every bus: instances or factories, as with middleware."""
        raise NotImplementedError

    @hookspec
    def catga_cli_commands(self) -> Sequence[CommandDescriptor]:
        """Return commands for the `catga` program."""
        raise NotImplementedError
