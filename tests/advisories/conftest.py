"""The servers of the conformance suite."""

from tests.conformance.conftest import target

__all__ = ["target"]
