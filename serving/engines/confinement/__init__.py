"""Engines that see and reach nothing but what they need: what the host offers, what is done with it, and the doing."""
