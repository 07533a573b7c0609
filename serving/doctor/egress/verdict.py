"""What a run proves: passed, failed or not proven. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from serving.doctor.egress.judge import Attempt
from serving.doctor.egress.processes import Process

Word = Literal["passed", "failed", "not proven"]
PHASES: Final = ("import", "load", "requests", "error", "idle", "shutdown")
"""What a stack is walked through, in this order."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the run."""

    name: str
    began_s: float
    """Seconds since the epoch."""
    ended_s: float
    did: tuple[str, ...] = ()
    """What was done in it, each with what came of it."""
    shortfall: str | None = None
    """Why it was not gone through whole; None where it was."""


@dataclass(frozen=True, slots=True)
class Watching:
    """Who watched, and how."""

    name: Literal["strace", "nftables", "namespace counters"]
    version: str | None
    how: str
    """Its command line, or what it counts."""
    shortfall: str | None = None
    """Why its record is not whole; None where it is."""
    limits: tuple[str, ...] = ()
    """What such a watcher cannot see at all."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A process, and who watched it."""

    process: Process
    watcher: str | None
    """None where nobody did, from its first instruction to its end."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Packets of the namespace that would have left, where nobody can name the process."""

    what: str
    packets: int


@dataclass(frozen=True, slots=True)
class Result:
    """The whole of a run, to be filed."""

    verdict: Word
    reasons: tuple[str, ...]
    """Why it is not `passed`; () where it is."""
    attempts: tuple[Attempt, ...]
    counted: tuple[Counted, ...]
    processes: tuple[Watched, ...]
    phases: tuple[Phase, ...]
    watching: Watching
    version: str
    """Of this software."""
    kernel: str
    host: str
    command: tuple[str, ...]
    """The stack's command line."""
    began: str
    """RFC 3339, UTC."""
    seconds: float


def decide_verdict(
    attempts: Sequence[Attempt],
    counted: Sequence[Counted],
    processes: Sequence[Process],
    phases: Sequence[Phase],
    watching: Watching,
) -> tuple[Word, tuple[str, ...]]:
    """The verdict, and all that speaks against `passed`; one attempt outweighs every doubt."""
    reached = [f"{attempts_counted(len(attempts))} to reach out"] if attempts else []
    reached += [f"{one.packets} packets: {one.what}" for one in counted if one.packets]
    doubts = doubts_of(processes, phases, watching)
    word: Word = "failed" if reached else "not proven" if doubts else "passed"
    return word, (*reached, *doubts)


def attempts_counted(number: int) -> str:
    """`1 attempt`, `2 attempts`."""
    return f"{number} attempt{'' if number == 1 else 's'}"


def doubts_of(processes: Sequence[Process], phases: Sequence[Phase], watching: Watching) -> tuple[str, ...]:
    """Why the absence of attempts would prove nothing; () where it does."""
    doubts = [] if watching.shortfall is None else [watching.shortfall]
    if not processes:
        doubts.append("no process was watched")
    for process in processes:
        doubts += [f"{process.name} (pid {process.pid}) {doubt}" for doubt in process.doubts]
    gone_through = {phase.name for phase in phases if phase.shortfall is None}
    for name in PHASES:
        if name not in gone_through:
            why = next((phase.shortfall for phase in phases if phase.name == name), None)
            doubts.append(f"the phase `{name}` was not {'reached' if why is None else f'gone through: {why}'}")
    return tuple(doubts)
