"""Frozen settings, every field described, layered: defaults < file < environment < flags."""

from serving.settings.load import WITHOUT_VARIABLE, load_settings, walk_fields
from serving.settings.model import (
    Access,
    Engines,
    Hardware,
    Limits,
    LlamaCpp,
    Log,
    Paths,
    Registry,
    Restart,
    Server,
    Settings,
)

__all__ = [
    "WITHOUT_VARIABLE",
    "Access",
    "Engines",
    "Hardware",
    "Limits",
    "LlamaCpp",
    "Log",
    "Paths",
    "Registry",
    "Restart",
    "Server",
    "Settings",
    "load_settings",
    "walk_fields",
]
