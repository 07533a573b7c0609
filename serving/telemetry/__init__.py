"""Logs and metrics. Knows no other module of ours, and never holds the text of a prompt or an answer."""
