"""Numbers for people."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """So many of them: `1 token`, `2 tokens`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def gib(size: int) -> str:
    """Bytes in the unit that suits: `4.6 GiB`, `64 MiB`, `12 KiB`."""
    if abs(size) >= 2**30:
        return f"{size / 2**30:.1f} GiB"
    return f"{size / 2**20:.0f} MiB" if abs(size) >= 2**20 else f"{size / 2**10:.0f} KiB"
