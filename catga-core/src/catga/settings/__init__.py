"""Floor 5: what can be set, from code, URL and environment."""

from catga.settings.core import Settings
from catga.settings.resolve import (
    CONTROL_VARIABLES,
    Resolved,
    check_overlap,
    resolve_settings,
)
from catga.settings.url import parse_url

__all__ = [
    "CONTROL_VARIABLES",
    "Resolved",
    "Settings",
    "check_overlap",
    "parse_url",
    "resolve_settings",
]
