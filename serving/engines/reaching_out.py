"""What engines in network namespaces of their own asked of them: read from the kernel, whatever library asked."""

from __future__ import annotations

from pathlib import Path

from serving.unrouted import namespace_of, read_unrouted


def unrouted_of(pid: int) -> dict[str, int]:
    """For each network namespace, other than ours, of a process and its descendants: how often no way was found.

    Empty where all are in ours, whose counters are of the whole host. What is gone cannot be read any more.
    """
    here = namespace_of("self")
    found: dict[str, int] = {}
    for member in descendants(pid):
        namespace = namespace_of(member)
        if namespace is not None and namespace != here and namespace not in found:
            count = read_unrouted(member)
            if count is not None:
                found[namespace] = count
    return found


def descendants(pid: int) -> list[int]:
    """A process and what it started, what that started, and so on; as far as the kernel tells (PROC_CHILDREN)."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        try:
            tasks = list(Path(f"/proc/{one}/task").iterdir())
        except OSError:
            continue
        for task in tasks:
            try:
                waiting += [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
            except OSError:
                continue
    return found
