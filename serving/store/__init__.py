"""Weights on disk: brought in, locked, verified. `cas.py` is the first file to read."""
