"""Synthetic weights of any model's shape, to measure a machine before weights are carried in."""

from serving.synthetic.description import write_description
from serving.synthetic.dummy import Progress, dummy_path, write_dummy, write_hollow

__all__ = ["Progress", "dummy_path", "write_description", "write_dummy", "write_hollow"]
