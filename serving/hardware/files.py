"""Reading what the kernel says of itself: small text files, absent or unreadable ones as None."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path) -> str | None:
    """The file's text, or None if it is absent or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """The whole number that the file holds, or None (also for `max`)."""
    text = (read_text(path) or "").strip()
    try:
        return int(text)
    except ValueError:
        return None


def read_table(path: Path) -> dict[str, int]:
    """Lines of `name number` as a table; other lines are passed over."""
    table: dict[str, int] = {}
    for line in (read_text(path) or "").splitlines():
        name, _, number = line.partition(" ")
        if number.strip().isdigit():
            table[name] = int(number)
    return table


def parse_list(text: str) -> tuple[int, ...]:
    """The kernel's list format, `0-3,8,10-11`, as ids in ascending order; () if it is not one."""
    ids: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            return ()
        ids.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(ids))
