"""Perimeter: open-weight language models served inside a secure perimeter."""

__version__ = "0.1.0"
