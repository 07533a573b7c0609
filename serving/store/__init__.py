"""Weights on disk. So far: synthetic ones of any model's shape, to measure a machine before weights are carried in."""

from serving.store.description import write_description
from serving.store.dummy import Progress, dummy_path, write_dummy, write_hollow

__all__ = ["Progress", "dummy_path", "write_description", "write_dummy", "write_hollow"]
