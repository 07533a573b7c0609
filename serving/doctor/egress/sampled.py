"""The processes of a stack, looked at again and again, where no tracer sees each of them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving.doctor.egress.processes import Process
from serving.unrouted import namespace_of, read_unrouted

_EVERY_S: Final = 0.1
_PARENT_FIELD: Final = 1
_START_FIELD: Final = 19
_COMMAND_CHARS: Final = 200


@dataclass(slots=True)
class _Seen:
    pid: int
    parent: int
    command: str
    began_s: float
    seen_s: float
    namespaces: set[str | None]


class Sampler:
    """Looks at all that descends from one process, ten times a second, on a thread of its own."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._here = namespace_of("self")
        self._seen: dict[tuple[int, str], _Seen] = {}
        self._unrouted: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> tuple[Process, ...]:
        """The processes that were seen; those in another namespace with a doubt, since the counters are of this one."""
        self._stop.set()
        self._thread.join()
        return tuple(_process(seen, self._here) for seen in self._seen.values())

    @property
    def unrouted_elsewhere(self) -> int:
        """What the namespaces that processes made for themselves counted, as last read."""
        return sum(self._unrouted.values())

    def _run(self) -> None:
        while True:
            self._look()
            if self._stop.wait(_EVERY_S):
                return

    def _look(self) -> None:
        found = _processes()
        now_s = time.time()
        family = {self._first}
        grew = True
        while grew:
            more = {pid for pid, (parent, _, _) in found.items() if parent in family} - family
            grew = bool(more)
            family |= more
        known = {pid for pid, _ in self._seen}  # those whose parent has died since belong still
        for pid in family | (known & found.keys()):
            if pid not in found:
                continue
            parent, start, command = found[pid]
            if pid not in family and (pid, start) not in self._seen:
                continue
            namespace = namespace_of(pid)
            seen = self._seen.setdefault((pid, start), _Seen(pid, parent, command, now_s, now_s, set()))
            seen.seen_s, seen.command = now_s, command or seen.command
            seen.namespaces.add(namespace)
            if namespace not in {None, self._here}:
                self._unrouted[str(namespace)] = max(self._unrouted.get(str(namespace), 0), read_unrouted(pid) or 0)


def _processes() -> dict[int, tuple[int, str, str]]:
    """Parent, time of start and command line of every process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            except OSError:
                continue
            if fields[0] not in {"Z", "X"}:
                command = " ".join(" ".join(words).split())[:_COMMAND_CHARS]
                found[int(entry.name)] = int(fields[_PARENT_FIELD]), fields[_START_FIELD], command
    return found


def _process(seen: _Seen, here: str | None) -> Process:
    elsewhere = seen.namespaces - {here, None}
    doubts = ["was in a network namespace of its own, whose counters were read now and then"] if elsewhere else []
    return Process(
        pid=seen.pid,
        parent=seen.parent,
        command=seen.command or "?",
        began_s=seen.began_s,
        ended_s=seen.seen_s,
        end="gone",
        threads=1,
        doubts=tuple(doubts),
    )
