"""What holds for all suites."""

from __future__ import annotations

from hypothesis import settings

# An example's time says how busy the machine is, and nothing about the property.
settings.register_profile("house", deadline=None)
settings.load_profile("house")
