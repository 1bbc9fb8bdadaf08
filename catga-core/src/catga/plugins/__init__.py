"""Floor 3: finding plugins and collecting what they bring. pluggy is used nowhere else.

A plugin needs only `hookimpl` from here, and `catga.spi`.
"""

from catga.plugins.catalog import Catalog, Plugin, PluginState
from catga.plugins.hookspecs import hookimpl
from catga.plugins.loader import installed_catalog, load_catalog

__all__ = [
    "Catalog",
    "Plugin",
    "PluginState",
    "hookimpl",
    "installed_catalog",
    "load_catalog",
]
