"""Every process of a trace, and whether it was watched from its first instruction to its end. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from serving.doctor.egress.lines import Call, End, Event, split, text_of

FORKS: Final = frozenset({"clone", "clone3", "fork", "vfork"})
_COMMAND_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Process:
    """One process, its threads counted in."""

    pid: int
    """As seen from outside all namespaces."""
    parent: int | None
    """The process that started it; None for the first one."""
    command: str
    """Its last command line; its parent's where it never executed another program."""
    began_s: float | None
    """Seconds since the epoch; None where nothing was seen of it."""
    ended_s: float | None
    end: str | None
    """How it ended; None where nobody saw it end."""
    threads: int
    doubts: tuple[str, ...]
    """Why not everything that it did was seen; () where everything was."""
    has_own_filter: bool = False
    """It set a seccomp filter for itself and its children: what this refuses does not happen."""

    @property
    def name(self) -> str:
        """The program, and the module where it is Python's."""
        words = self.command.split()
        program = PurePosixPath(words[0]).name if words else "?"
        if "-m" in words[:-1]:
            return f"{program} -m {words[words.index('-m') + 1]}"
        return program


@dataclass(slots=True)
class _Thread:
    tid: int
    began_s: float | None
    parent: _Thread | None = None
    leader: _Thread | None = None
    """Of its process; None while it is that itself."""
    end: End | None = None
    command: str | None = None
    doubts: list[str] = field(default_factory=list)
    has_own_filter: bool = False

    @property
    def first(self) -> _Thread:
        return self if self.leader is None else self.leader.first


def processes_of(events: Iterable[Event]) -> tuple[tuple[Process, ...], dict[int, Process]]:
    """All processes in the order in which they appeared, and for the place of each event the process that made it."""
    table = _Table()
    owners: dict[int, _Thread] = {}
    for place, event in enumerate(events):
        if isinstance(event, Call):
            owners[place] = table.called(event)
        elif isinstance(event, End):
            owners[place] = table.ended(event)
    made = {id(thread): _process(thread, table.threads) for thread in table.threads if thread.leader is None}
    return tuple(made.values()), {place: made[id(thread.first)] for place, thread in owners.items()}


class _Table:
    def __init__(self) -> None:
        self.threads: list[_Thread] = []
        self._live: dict[int, _Thread] = {}
        self._unclaimed: dict[int, _Thread] = {}
        """Seen before the call that made them had returned, which may be after their own end."""

    def called(self, call: Call) -> _Thread:
        thread = self._seen(call.tid, call.at_s)
        if call.name in FORKS and call.succeeded and call.result_here:
            self._forked(thread, call, call.result_here)
        elif call.name in {"execve", "execveat"} and call.error is None:
            # of a successful one that replaces its process the watcher sees no result
            thread.first.command = _command(call) or thread.first.command
        elif call.name == "io_uring_setup" and call.succeeded:
            thread.first.doubts.append("has an io_uring, whose operations cannot be seen")
        elif call.name == "socketcall":
            thread.first.doubts.append("made a call of another architecture, which is not read")
        elif call.name == "seccomp" or (call.name == "prctl" and call.arguments[:1] == ("PR_SET_SECCOMP",)):
            thread.first.has_own_filter |= call.succeeded
        return thread

    def ended(self, end: End) -> _Thread:
        thread = self._seen(end.tid, end.at_s)
        if end.successor is not None:
            other = self._live.pop(end.successor, None)
            if other is not None:
                other.end = End(end.successor, end.at_s, f"goes on as {end.tid}")
            return thread
        thread.end = end
        self._live.pop(end.tid, None)
        return thread

    def _seen(self, tid: int, at_s: float) -> _Thread:
        thread = self._live.get(tid)
        if thread is None:
            thread = self._live[tid] = _Thread(tid, at_s)
            if self.threads:  # all but the first have been made by another
                self._unclaimed[tid] = thread
            self.threads.append(thread)
        elif thread.began_s is None:
            thread.began_s = at_s
        return thread

    def _forked(self, parent: _Thread, call: Call, tid: int) -> None:
        child = self._unclaimed.pop(tid, None)
        if child is None:
            child = self._live[tid] = _Thread(tid, None)
            self.threads.append(child)
        child.parent = parent
        child.has_own_filter |= parent.first.has_own_filter
        flags = _flags(call)
        if "CLONE_THREAD" in flags:
            child.leader = parent.first
        if "CLONE_UNTRACED" in flags:
            child.doubts.append("was started out of the watcher's sight (CLONE_UNTRACED)")


def _flags(call: Call) -> frozenset[str]:
    if call.name == "clone3":
        text = call.arguments[0] if call.arguments else ""
        found = next((part for part in split(text.split("=>")[0].strip().strip("{}")) if part.startswith("flags=")), "")
    else:
        found = next((part for part in call.arguments if part.startswith("flags=")), "")
    return frozenset(found.removeprefix("flags=").split("|"))


def _command(call: Call) -> str | None:
    place = 1 if call.name == "execve" else 2
    words = call.arguments[place] if len(call.arguments) > place else ""
    parts = [text_of(part.removesuffix("...")) or "…" for part in split(words.strip("[]"))]
    line = " ".join(" ".join(part.split()) for part in parts)
    return line[:_COMMAND_CHARS] or None


def _process(leader: _Thread, threads: list[_Thread]) -> Process:
    members = [thread for thread in threads if thread.first is leader]
    doubts = [doubt for thread in members for doubt in thread.doubts]
    if any(thread.began_s is None and thread.end is None for thread in members):
        doubts.append("was not seen")
    elif any(thread.end is None for thread in members):
        doubts.append("was not seen to its end")
    if leader.parent is None and leader is not threads[0]:
        doubts.append("was not seen from its beginning")
    ancestor: _Thread | None = leader
    while ancestor is not None and ancestor.first.command is None:
        ancestor = ancestor.first.parent
    return Process(
        pid=leader.tid,
        parent=None if leader.parent is None else leader.parent.first.tid,
        command="?" if ancestor is None else ancestor.first.command or "?",
        began_s=leader.began_s,
        ended_s=None if leader.end is None else leader.end.at_s,
        end=None if leader.end is None else leader.end.how,
        threads=len(members),
        doubts=tuple(dict.fromkeys(doubts)),
        has_own_filter=leader.has_own_filter,
    )
