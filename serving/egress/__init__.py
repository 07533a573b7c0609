"""The way out: what may leave, where to, and in which words."""
