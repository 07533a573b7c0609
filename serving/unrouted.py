"""How often a network namespace was asked for a way out that it does not have: the kernel's own counters.

In a namespace with loopback only, every connection and every datagram to another host ends there, and is counted,
whoever asked and by whatever library. Raw sockets are not, and what stays on loopback is not.
"""

from __future__ import annotations

from pathlib import Path


def unrouted_of(snmp: str, snmp6: str) -> int | None:
    """`OutNoRoutes` of IPv4 and IPv6 together, from /proc/PID/net/snmp and snmp6; None where neither has it."""
    counts = [count for count in (_of_snmp(snmp), _of_snmp6(snmp6)) if count is not None]
    return sum(counts) if counts else None


def _of_snmp(text: str) -> int | None:
    """A line of names, then one of numbers, both beginning with the protocol."""
    rows = [line.split() for line in text.splitlines() if line.startswith("Ip:")]
    if len(rows) < 2 or "OutNoRoutes" not in rows[0]:
        return None
    place = rows[0].index("OutNoRoutes")
    return _number(rows[1][place]) if place < len(rows[1]) else None


def _of_snmp6(text: str) -> int | None:
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["Ip6OutNoRoutes"] and len(words) == 2:
            return _number(words[1])
    return None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() else None


def namespace_of(pid: int | str) -> str | None:
    """Which network namespace a process is in; None where that cannot be seen."""
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except OSError:
        return None


def read_unrouted(pid: int | str) -> int | None:
    """The count of the namespace that a process is in; None where it cannot be read."""
    texts = []
    for name in ("snmp", "snmp6"):
        try:
            texts.append(Path(f"/proc/{pid}/net/{name}").read_text(encoding="ascii", errors="replace"))
        except OSError:
            texts.append("")  # a kernel without IPv6 has no snmp6
    return unrouted_of(*texts)
