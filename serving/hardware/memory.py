"""Main memory, under whatever limits the control group sets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from serving.hardware.cgroup import Limits
from serving.hardware.files import read_text
from serving.hardware.machine import Memory, NumaNode


def read_memory(root: Path, limits: Limits, elsewhere: Iterable[NumaNode] = ()) -> Memory:
    """Main memory as the files under `root` show it.

    `elsewhere` are NUMA nodes whose memory is a GPU's own: the kernel counts it as main memory, and it is not for us.
    """
    table = _meminfo(root)
    total, available = table.get("MemTotal"), table.get("MemAvailable")
    for node in elsewhere:
        total = None if total is None else max(0, total - (node.memory_total_bytes or 0))
        available = None if available is None else max(0, available - (node.memory_free_bytes or 0))
    # A limit above what the machine has limits nothing.
    binding = limits.memory_bytes is not None and (total is None or limits.memory_bytes < total)
    return Memory(
        total_bytes=total,
        available_bytes=available,
        limit_bytes=limits.memory_bytes if binding else None,
        limit_remaining_bytes=limits.memory_remaining_bytes if binding else None,
        swap_total_bytes=table.get("SwapTotal"),
        swap_free_bytes=table.get("SwapFree"),
        huge_pages=table.get("HugePages_Total"),
        huge_pages_free=table.get("HugePages_Free"),
        huge_page_bytes=table.get("Hugepagesize"),
        transparent_huge_pages=_transparent(root),
    )


def _meminfo(root: Path) -> dict[str, int]:
    """Sizes in bytes; counts, which have no unit, as they are."""
    table: dict[str, int] = {}
    for line in (read_text(root / "proc/meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        number, _, unit = rest.strip().partition(" ")
        if number.isdigit() and unit in ("kB", ""):
            table[name] = int(number) * (1024 if unit else 1)
    return table


def _transparent(root: Path) -> Literal["always", "madvise", "never"] | None:
    """The choice in brackets: `always [madvise] never`."""
    text = read_text(root / "sys/kernel/mm/transparent_hugepage/enabled") or ""
    choices: tuple[Literal["always", "madvise", "never"], ...] = ("always", "madvise", "never")
    return next((choice for choice in choices if f"[{choice}]" in text), None)
